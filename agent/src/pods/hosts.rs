//! The pod's `/etc/hosts`.

use std::fmt::Write;
use std::net::IpAddr;

use k8s_openapi::api::core::v1 as core;

/// The text for a pod with these addresses and this name.
pub fn text(
    spec: &core::PodSpec,
    addresses: &[IpAddr],
    hostname: &str,
    domain: &str,
    namespace: &str,
) -> String {
    let mut text = String::from(
        "# Managed by the node.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::\tip6-localnet\nfe00::\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    for address in addresses {
        let names = match &spec.subdomain {
            Some(subdomain) => format!("{hostname}.{subdomain}.{namespace}.svc.{domain}\t{hostname}"),
            None => hostname.to_owned(),
        };
        line(&mut text, &address.to_string(), &names);
    }
    for alias in spec.host_aliases.iter().flatten() {
        line(&mut text, &alias.ip, &alias.hostnames.iter().flatten().cloned().collect::<Vec<_>>().join("\t"));
    }
    text
}

fn line(text: &mut String, address: &str, names: &str) {
    writeln!(text, "{address}\t{names}").expect("writing to a string does not fail");
}
