//! What a runtime asks: environment and standard input, parsed once into a `Request` (CNI spec 1.1, section 2).

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use crate::answer::Result as CniResult;

/// The spec versions spoken, oldest first.
pub const SUPPORTED: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// Where the agent listens unless the network configuration says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/hawser/cni.sock";
/// Where a DEL waits for an agent that is away unless the network configuration says otherwise.
pub const DEFAULT_SPOOL: &str = "/var/lib/hawser/agent/cni-del";

/// A CNI verb with what it needs.
#[derive(Debug, Clone, PartialEq)]
pub enum Verb {
    /// Attach a container.
    Add(Target),
    /// Detach a container.
    Del(Target),
    /// Is the attachment still as it was made?
    Check(Target),
    /// Would ADD be served?
    Status,
    /// Remove every attachment not in the list.
    Gc(Vec<Attachment>),
    /// Which spec versions are spoken?
    Version,
}

/// The container and interface a verb is about.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
    /// `CNI_NETNS`; may be empty for DEL only.
    pub netns: String,
    /// `K8S_POD_NAMESPACE`, `K8S_POD_NAME`, `K8S_POD_UID` out of `CNI_ARGS`; empty when not given.
    pub pod: Pod,
}

/// The pod a runtime named in `CNI_ARGS`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pod {
    /// `K8S_POD_NAMESPACE`.
    pub namespace: String,
    /// `K8S_POD_NAME`.
    pub name: String,
    /// `K8S_POD_UID`.
    pub uid: String,
}

/// One entry of `cni.dev/valid-attachments`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Attachment {
    /// The container.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// Its interface.
    pub ifname: String,
}

/// What the runtime fills in for capabilities the configuration names.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeConfig {
    /// The capability `portMappings`.
    #[serde(default)]
    pub port_mappings: Vec<PortMapping>,
}

/// A port of the host that leads to the container. Containerd writes the keys with capitals, against the convention.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    /// The host's port; zero asks for none.
    #[serde(default, alias = "HostPort")]
    pub host_port: u16,
    /// The container's port.
    #[serde(alias = "ContainerPort")]
    pub container_port: u16,
    /// `tcp`, `udp` or `sctp`; empty is TCP.
    #[serde(default, alias = "Protocol")]
    pub protocol: String,
    /// One address of the host; empty is all of them.
    #[serde(default, rename = "hostIP", alias = "HostIP")]
    pub host_ip: String,
}

/// The network configuration on standard input; keys we do not know are the runtime's business.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// The version the answer must be in.
    #[serde(default = "oldest_version")]
    pub cni_version: String,
    /// The network's name.
    #[serde(default)]
    pub name: String,
    /// The agent's socket.
    #[serde(default = "default_socket")]
    pub agent_socket: PathBuf,
    /// Where DEL is queued while the agent is away.
    #[serde(default = "default_spool")]
    pub spool_dir: PathBuf,
    /// What the plugins before us made (ADD), or all of them (CHECK, DEL).
    #[serde(default)]
    pub prev_result: Option<CniResult>,
    /// What the runtime filled in.
    #[serde(default)]
    pub runtime_config: RuntimeConfig,
    /// GC: what the runtime still knows.
    #[serde(default, rename = "cni.dev/valid-attachments")]
    pub valid_attachments: Option<Vec<Attachment>>,
}

/// A verb and the configuration it came with.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// What to do.
    pub verb: Verb,
    /// How.
    pub config: Config,
}

/// What is wrong with a request; `code` is the spec's.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    /// A variable is missing.
    #[error("the environment variable {0} is missing")]
    MissingVariable(&'static str),
    /// A variable holds something impossible.
    #[error("the environment variable {name} is {value:?}: {want}")]
    BadVariable {
        /// Its name.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it has to be.
        want: &'static str,
    },
    /// Standard input is not a JSON object of the right shape.
    #[error("the network configuration on standard input cannot be decoded")]
    Undecodable(#[source] serde_json::Error),
    /// Standard input decodes, but does not make sense.
    #[error("the network configuration is invalid: {0}")]
    BadConfig(String),
    /// A version we do not speak, or one too old for the verb.
    #[error("cniVersion {got:?} is not supported for {verb}; supported: {}", SUPPORTED.join(", "))]
    Version {
        /// The version asked for.
        got: String,
        /// The verb.
        verb: String,
    },
}

impl Malformed {
    /// The error code of CNI spec 1.1, section 5.
    pub fn code(&self) -> u32 {
        match self {
            Self::Version { .. } => 1,
            Self::MissingVariable(_) | Self::BadVariable { .. } => 4,
            Self::Undecodable(_) => 6,
            Self::BadConfig(_) => 7,
        }
    }
}

/// Parses the environment and standard input; on failure also says which version to answer in.
pub fn parse(env: &BTreeMap<String, String>, stdin: &[u8]) -> Result<Request, (String, Malformed)> {
    let newest = || SUPPORTED[SUPPORTED.len() - 1].to_owned();
    let command = variable(env, "CNI_COMMAND").map_err(|error| (newest(), error))?;
    // By way of a map: serde would take an array for a struct.
    let config: Config = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(stdin)
        .and_then(|object| serde_json::from_value(object.into()))
        .map_err(|error| (newest(), Malformed::Undecodable(error)))?;
    let version =
        if SUPPORTED.contains(&config.cni_version.as_str()) { config.cni_version.clone() } else { newest() };
    let verb = verb(command, env, &config).map_err(|error| (version, error))?;
    Ok(Request { verb, config })
}

fn verb(command: &str, env: &BTreeMap<String, String>, config: &Config) -> Result<Verb, Malformed> {
    if command == "VERSION" {
        return Ok(Verb::Version);
    }
    let rank = SUPPORTED.iter().position(|version| *version == config.cni_version);
    let since = match command {
        "STATUS" | "GC" => 3,
        "CHECK" => 1,
        _ => 0,
    };
    if rank.is_none_or(|rank| rank < since) {
        return Err(Malformed::Version { got: config.cni_version.clone(), verb: command.to_owned() });
    }
    match command {
        "ADD" => Ok(Verb::Add(target(env, true)?)),
        "DEL" => Ok(Verb::Del(target(env, false)?)),
        "CHECK" if config.prev_result.is_none() => {
            Err(Malformed::BadConfig("CHECK needs a prevResult".to_owned()))
        }
        "CHECK" => Ok(Verb::Check(target(env, true)?)),
        "STATUS" => Ok(Verb::Status),
        "GC" => config
            .valid_attachments
            .clone()
            .map(Verb::Gc)
            .ok_or_else(|| Malformed::BadConfig("GC needs the key cni.dev/valid-attachments".to_owned())),
        _ => Err(Malformed::BadVariable {
            name: "CNI_COMMAND",
            value: command.to_owned(),
            want: "it must be ADD, DEL, CHECK, STATUS, GC or VERSION",
        }),
    }
}

fn target(env: &BTreeMap<String, String>, needs_netns: bool) -> Result<Target, Malformed> {
    let container_id = variable(env, "CNI_CONTAINERID")?.to_owned();
    let ifname = variable(env, "CNI_IFNAME")?.to_owned();
    if !is_container_id(&container_id) {
        return Err(Malformed::BadVariable {
            name: "CNI_CONTAINERID",
            value: container_id,
            want: "it must start with a letter or digit and hold only letters, digits, '_', '.', '-'",
        });
    }
    if !is_ifname(&ifname) {
        return Err(Malformed::BadVariable {
            name: "CNI_IFNAME",
            value: ifname,
            want: "it must be 1 to 15 characters without '/', ':' and white space",
        });
    }
    let netns = match variable(env, "CNI_NETNS") {
        Ok(netns) => netns.to_owned(),
        Err(error) if needs_netns => return Err(error),
        Err(_) => String::new(),
    };
    let pod = env.get("CNI_ARGS").map_or_else(|| Ok(Pod::default()), |args| pod_from_args(args))?;
    Ok(Target { container_id, ifname, netns, pod })
}

fn pod_from_args(args: &str) -> Result<Pod, Malformed> {
    let mut pod = Pod::default();
    for pair in args.split(';').filter(|pair| !pair.is_empty()) {
        let Some((key, value)) = pair.split_once('=') else {
            return Err(Malformed::BadVariable {
                name: "CNI_ARGS",
                value: args.to_owned(),
                want: "it must be KEY=VALUE pairs separated by ';'",
            });
        };
        match key {
            "K8S_POD_NAMESPACE" => value.clone_into(&mut pod.namespace),
            "K8S_POD_NAME" => value.clone_into(&mut pod.name),
            "K8S_POD_UID" => value.clone_into(&mut pod.uid),
            _ => {}
        }
    }
    Ok(pod)
}

fn variable<'a>(env: &'a BTreeMap<String, String>, name: &'static str) -> Result<&'a str, Malformed> {
    env.get(name)
        .map(String::as_str)
        .filter(|value| !value.is_empty())
        .ok_or(Malformed::MissingVariable(name))
}

fn is_container_id(id: &str) -> bool {
    id.starts_with(|c: char| c.is_ascii_alphanumeric())
        && id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

fn is_ifname(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && name != "."
        && name != ".."
        && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace())
}

/// A configuration without `cniVersion` is of the spec's first version, which is no longer spoken.
fn oldest_version() -> String {
    "0.1.0".to_owned()
}

fn default_socket() -> PathBuf {
    PathBuf::from(DEFAULT_SOCKET)
}

fn default_spool() -> PathBuf {
    PathBuf::from(DEFAULT_SPOOL)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    const ADD: [(&str, &str); 4] =
        [("CNI_COMMAND", "ADD"), ("CNI_CONTAINERID", "Abc.1"), ("CNI_NETNS", "/n"), ("CNI_IFNAME", "eth0")];

    #[test]
    fn the_pod_is_read_from_the_arguments() {
        let mut env = env(&ADD);
        env.insert(
            "CNI_ARGS".into(),
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=a;K8S_POD_NAME=b;K8S_POD_UID=c".into(),
        );
        let request = parse(&env, br#"{"cniVersion":"1.0.0","name":"n"}"#).unwrap();
        let Verb::Add(target) = request.verb else { panic!("not ADD") };
        assert_eq!(target.pod, Pod { namespace: "a".into(), name: "b".into(), uid: "c".into() });
    }

    #[test]
    fn port_mappings_are_read_as_the_convention_and_as_containerd_write_them() {
        let with = |list: &str| {
            let text =
                format!(r#"{{"cniVersion":"1.0.0","name":"n","runtimeConfig":{{"portMappings":[{list}]}}}}"#);
            parse(&env(&ADD), text.as_bytes()).map(|request| request.config.runtime_config.port_mappings)
        };
        let want = PortMapping {
            host_port: 8080,
            container_port: 80,
            protocol: "udp".into(),
            host_ip: "192.0.2.1".into(),
        };
        let convention = r#"{"hostPort":8080,"containerPort":80,"protocol":"udp","hostIP":"192.0.2.1"}"#;
        let capitals = r#"{"HostPort":8080,"ContainerPort":80,"Protocol":"udp","HostIP":"192.0.2.1"}"#;
        assert_eq!(with(&format!("{convention},{capitals}")).unwrap(), [want.clone(), want]);
        let bare = PortMapping { container_port: 80, ..PortMapping::default() };
        assert_eq!(
            with(r#"{"containerPort":80}"#).unwrap(),
            [bare],
            "no port of the host, every address, TCP"
        );
        for wrong in [r#"{"hostPort":80}"#, r#"{"containerPort":65536}"#, r#"{"containerPort":-1}"#, "7"] {
            assert_eq!(with(wrong).unwrap_err().1.code(), 6, "{wrong}");
        }
    }

    #[test]
    fn each_malformed_request_has_the_code_of_the_spec() {
        let good = r#"{"cniVersion":"1.1.0","name":"n"}"#;
        let without = |gone: &str| ADD.into_iter().filter(|(key, _)| *key != gone).collect::<Vec<_>>();
        let with = |key, value| {
            let mut pairs = without(key);
            pairs.push((key, value));
            pairs
        };
        let cases = vec![
            (without("CNI_COMMAND"), good, 4),
            (without("CNI_CONTAINERID"), good, 4),
            (without("CNI_NETNS"), good, 4),
            (without("CNI_IFNAME"), good, 4),
            (with("CNI_COMMAND", "add"), good, 4),
            (with("CNI_CONTAINERID", "../etc"), good, 4),
            (with("CNI_IFNAME", "a/b"), good, 4),
            (with("CNI_IFNAME", "sixteen-letters-"), good, 4),
            (with("CNI_ARGS", "K8S_POD_NAME"), good, 4),
            (ADD.to_vec(), "", 6),
            (ADD.to_vec(), "{", 6),
            (ADD.to_vec(), "[]", 6),
            (ADD.to_vec(), r#"{"cniVersion":7}"#, 6),
            (ADD.to_vec(), r#"{"cniVersion":"0.2.0"}"#, 1),
            (ADD.to_vec(), r#"{"cniVersion":"2.0.0"}"#, 1),
            (ADD.to_vec(), r"{}", 1),
            (with("CNI_COMMAND", "CHECK"), good, 7),
            (with("CNI_COMMAND", "GC"), good, 7),
            (with("CNI_COMMAND", "GC"), r#"{"cniVersion":"1.0.0"}"#, 1),
            (with("CNI_COMMAND", "STATUS"), r#"{"cniVersion":"0.4.0"}"#, 1),
            (with("CNI_COMMAND", "CHECK"), r#"{"cniVersion":"0.3.1"}"#, 1),
        ];
        for (pairs, stdin, code) in cases {
            let (_, error) = parse(&env(&pairs), stdin.as_bytes()).unwrap_err();
            assert_eq!(error.code(), code, "{pairs:?} {stdin}: {error}");
        }
    }
}
