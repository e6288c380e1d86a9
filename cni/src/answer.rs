//! What a runtime is told: results and errors in the shape of the spec version it asked for.

use serde::{Deserialize, Serialize};

/// Keys that are somebody else's.
pub type More = serde_json::Map<String, serde_json::Value>;

/// The result of ADD, and the `prevResult` of CHECK and DEL.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Result {
    /// The version of this shape.
    #[serde(default)]
    pub cni_version: String,
    /// Interfaces, in the host and in the container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<Interface>,
    /// Addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ips: Vec<Ip>,
    /// Routes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// Name servers as earlier plugins gave them; passed on untouched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<serde_json::Value>,
}

/// One interface.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its hardware address.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mac: String,
    /// Its MTU; since spec 1.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The namespace it is in; empty for the host's.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sandbox: String,
    /// What earlier plugins said beyond that; passed on untouched.
    #[serde(flatten)]
    pub more: More,
}

/// One address.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Ip {
    /// "4" or "6"; before spec 1.0 only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Index into `interfaces`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<u32>,
    /// With prefix length.
    pub address: String,
    /// The next hop.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub gateway: String,
}

/// One route.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Route {
    /// Where to, with prefix length.
    pub dst: String,
    /// Through whom.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub gw: String,
    /// What earlier plugins said beyond that (metrics, tables); passed on untouched.
    #[serde(flatten)]
    pub more: More,
}

impl Result {
    /// This result in the shape of `version`.
    pub fn for_version(mut self, version: &str) -> Self {
        let before_one = version.starts_with("0.");
        version.clone_into(&mut self.cni_version);
        for ip in &mut self.ips {
            let family = if ip.address.contains(':') { "6" } else { "4" };
            ip.version = before_one.then(|| family.to_owned());
        }
        if version != "1.1.0" {
            for interface in &mut self.interfaces {
                interface.mtu = None;
            }
        }
        self
    }

    /// What an earlier plugin made, followed by what we made.
    pub fn after(self, earlier: Self) -> Self {
        let shift = u32::try_from(earlier.interfaces.len()).unwrap_or(u32::MAX);
        let ours = self.ips.into_iter().map(|ip| Ip { interface: ip.interface.map(|i| i + shift), ..ip });
        Self {
            cni_version: self.cni_version,
            interfaces: earlier.interfaces.into_iter().chain(self.interfaces).collect(),
            ips: earlier.ips.into_iter().chain(ours).collect(),
            routes: earlier.routes.into_iter().chain(self.routes).collect(),
            dns: earlier.dns.or(self.dns),
        }
    }

    /// The addresses of the interface `ifname` inside a container.
    pub fn addresses_of(&self, ifname: &str) -> Vec<String> {
        let is_ours = |index: Option<u32>| {
            index
                .and_then(|index| self.interfaces.get(index as usize))
                .is_none_or(|interface| interface.name == ifname && !interface.sandbox.is_empty())
        };
        self.ips.iter().filter(|ip| is_ours(ip.interface)).map(|ip| ip.address.clone()).collect()
    }
}

/// What went wrong, as printed on standard output.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// The version of this shape.
    pub cni_version: String,
    /// The code of spec 1.1, section 5; ours from 100.
    pub code: u32,
    /// One sentence.
    pub msg: String,
    /// Its causes.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub details: String,
}

impl Failure {
    /// A failure out of an error and its causes.
    pub fn new(version: &str, code: u32, error: &dyn std::error::Error) -> Self {
        let causes = std::iter::successors(error.source(), |cause| cause.source());
        let details = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
        Self { cni_version: version.to_owned(), code, msg: error.to_string(), details }
    }
}

/// The answer to VERSION.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Versions {
    /// The newest.
    pub cni_version: String,
    /// All.
    pub supported_versions: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result() -> Result {
        Result {
            interfaces: vec![
                Interface { name: "host1".into(), ..Interface::default() },
                Interface {
                    name: "eth0".into(),
                    sandbox: "/n".into(),
                    mtu: Some(1500),
                    ..Interface::default()
                },
            ],
            ips: vec![Ip { interface: Some(1), address: "fd00::1/128".into(), ..Ip::default() }],
            ..Result::default()
        }
    }

    #[test]
    fn versions_before_one_name_the_family_and_before_one_one_no_mtu() {
        let old = result().for_version("0.4.0");
        assert_eq!(old.ips[0].version.as_deref(), Some("6"));
        assert_eq!(old.interfaces[1].mtu, None);
        let new = result().for_version("1.1.0");
        assert_eq!(new.ips[0].version, None);
        assert_eq!(new.interfaces[1].mtu, Some(1500));
    }

    #[test]
    fn what_earlier_plugins_said_is_passed_on() {
        let text =
            r#"{"interfaces":[{"name":"a","socketPath":"/s"}],"routes":[{"dst":"0.0.0.0/0","table":7}]}"#;
        let merged = result().after(serde_json::from_str(text).unwrap());
        let printed = serde_json::to_value(&merged).unwrap();
        assert_eq!(
            (&printed["interfaces"][0]["socketPath"], &printed["routes"][0]["table"]),
            (&"/s".into(), &7.into())
        );
    }

    #[test]
    fn an_earlier_result_comes_first_and_indices_move() {
        let merged = result().after(result());
        assert_eq!(merged.interfaces.len(), 4);
        assert_eq!(merged.ips[0].interface, Some(1));
        assert_eq!(merged.ips[1].interface, Some(3));
    }
}
