//! The plugin `loopback`, which containerd wants for every sandbox: the agent brings `lo` up with the pod's own link, so
//! there is nothing left to do but to say so.

use crate::answer::{Interface, Ip, Result};
use crate::request::{Request, Verb};
use crate::verbs::{self, Answer};

/// The name it is called by.
pub const NAME: &str = "loopback";

/// Answers without the agent.
pub fn serve(request: &Request) -> Answer {
    match &request.verb {
        Verb::Add(target) => {
            let ip = |address: &str| Ip { interface: Some(0), address: address.to_owned(), ..Ip::default() };
            let result = Result {
                interfaces: vec![Interface {
                    name: target.ifname.clone(),
                    mac: "00:00:00:00:00:00".to_owned(),
                    sandbox: target.netns.clone(),
                    ..Interface::default()
                }],
                ips: vec![ip("127.0.0.1/8"), ip("::1/128")],
                ..Result::default()
            };
            verbs::printed(&result.for_version(&request.config.cni_version))
        }
        Verb::Version => verbs::versions(),
        Verb::Del(_) | Verb::Check(_) | Verb::Status | Verb::Gc(_) => Answer::Silent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::parse;

    #[test]
    fn every_sandbox_has_its_own_localhost() {
        let env =
            [("CNI_COMMAND", "ADD"), ("CNI_CONTAINERID", "c"), ("CNI_NETNS", "/n"), ("CNI_IFNAME", "lo")];
        let env = env.map(|(key, value)| (key.to_owned(), value.to_owned())).into_iter().collect();
        let request = parse(&env, br#"{"cniVersion":"0.3.1","name":"cni-loopback"}"#).unwrap();
        let Answer::Printed(text) = serve(&request) else { panic!("not printed") };
        assert_eq!(
            text,
            r#"{"cniVersion":"0.3.1","interfaces":[{"name":"lo","mac":"00:00:00:00:00:00","sandbox":"/n"}],"ips":[{"version":"4","interface":0,"address":"127.0.0.1/8"},{"version":"6","interface":0,"address":"::1/128"}]}"#
        );
    }
}
