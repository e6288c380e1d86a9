//! What a kube-proxy has left is found and removed, and nothing else.

use std::io::Write;
use std::process::{Command, Stdio};

use agent::kernel::kube_proxy::{find, remove};

use crate::namespace::Namespace;
use crate::world::allowed;

const NFT: &str = "\
table ip kube-proxy { chain services { type nat hook prerouting priority dstnat; }; }
table ip6 kube-proxy { chain services { type nat hook prerouting priority dstnat; }; }
table ip mine { chain input { type filter hook input priority 0; }; }
";

const IPTABLES: &str = "\
*nat
:KUBE-SERVICES - [0:0]
:KUBE-SVC-X - [0:0]
:MINE - [0:0]
-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A PREROUTING -j MINE
-A KUBE-SERVICES -d 10.96.0.1/32 -j KUBE-SVC-X
COMMIT
";

/// Whether the tool is there; what it prints.
fn feed(tool: &str, arguments: &[&str], input: &str) -> Option<String> {
    let spawned =
        Command::new(tool).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok();
    let mut child = spawned?;
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{tool} {arguments:?}");
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn leftovers_of_kube_proxy_are_found_and_removed_and_nothing_else() {
    if !allowed() {
        return;
    }
    let namespace = Namespace::new();
    namespace.ip("link add kube-ipvs0 type bridge");
    namespace.run(|| {
        let (nft, iptables) = (
            feed("nft", &["-f", "-"], NFT).is_some(),
            feed("iptables-nft-restore", &["--noflush"], IPTABLES).is_some(),
        );
        let found = find().unwrap().found;
        println!("nft {nft}, iptables {iptables}: {found:?}");
        let has = |what: &str| found.iter().any(|line| line.contains(what));
        assert!(has("device kube-ipvs0"));
        assert_eq!(has("nftables table ip kube-proxy") && has("nftables table ip6 kube-proxy"), nft);
        assert_eq!(has("2 KUBE- chains of table nat (iptables-nft-restore)"), iptables);
        assert_eq!(remove().unwrap().len(), found.len());
        assert_eq!(find().unwrap().found, Vec::<String>::new());
        assert_eq!(remove().unwrap(), Vec::<String>::new(), "a second time there is nothing");
        if nft {
            assert!(feed("nft", &["list", "tables"], "").unwrap().contains("table ip mine"));
        }
        if iptables {
            let left = feed("iptables-nft-save", &["-t", "nat"], "").unwrap();
            assert!(left.contains("-A PREROUTING -j MINE") && !left.contains("KUBE"), "{left}");
        }
    });
}
