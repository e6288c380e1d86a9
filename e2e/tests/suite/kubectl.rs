//! Unmodified kubectl against a cluster of one node: every verb a person uses on an ordinary day.
//!
//! kubectl comes from the machine; where there is none, the test says so and ends.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::{Cluster, Layout};

use crate::support;

const EXAMPLE: &str = include_str!("../../../deploy/examples/hello.yaml");

#[test]
fn kubectl_works_as_against_any_cluster() -> Result<()> {
    if support::is_skipped() {
        return Ok(());
    }
    if Command::new("kubectl").args(["version", "--client"]).output().is_err() {
        println!("skipped: kubectl is not on PATH");
        return Ok(());
    }
    let _turn = support::turn()?;
    let layout: Layout = "kctl:3".parse()?;
    e2e::down(&layout, true)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let outcome = runtime.block_on(session(&layout));
    if outcome.is_err() {
        support::print_logs(&layout);
    }
    e2e::down(&layout, true)?;
    outcome
}

async fn session(layout: &Layout) -> Result<()> {
    let cluster = Cluster::up(layout.clone(), 1, support::binaries()?, &|line| println!("{line}")).await?;
    let kubectl = Kubectl { kubeconfig: cluster.layout.kubeconfig() };
    tokio::task::spawn_blocking(move || {
        kubectl.reads()?;
        kubectl.workloads()?;
        kubectl.containers()?;
        kubectl.writes()?;
        kubectl.errors()?;
        kubectl.deletes()
    })
    .await
    .context("the session panicked")?
}

struct Kubectl {
    kubeconfig: PathBuf,
}

impl Kubectl {
    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new("kubectl");
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(words(arguments));
        command
    }

    /// Runs kubectl with `input` as standard input; returns what it printed, both streams together.
    fn run(&self, arguments: &str, input: &str) -> Result<(bool, String)> {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("start kubectl")?;
        // A command that does not read its input closes the pipe early.
        child.stdin.take().context("a pipe")?.write_all(input.as_bytes()).ok();
        let output = child.wait_with_output()?;
        let printed = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8_lossy(&printed).into_owned()))
    }

    /// The command succeeds and prints every one of `wanted`.
    fn says(&self, arguments: &str, input: &str, wanted: &[&str]) -> Result<String> {
        let (success, printed) = self.run(arguments, input)?;
        ensure!(success, "`kubectl {arguments}` failed: {printed}");
        for part in wanted {
            ensure!(printed.contains(part), "`kubectl {arguments}` did not print `{part}` but: {printed}");
        }
        println!("ok: kubectl {arguments}");
        Ok(printed)
    }

    /// The command fails and prints `wanted`.
    fn refuses(&self, arguments: &str, input: &str, wanted: &str) -> Result<()> {
        let (success, printed) = self.run(arguments, input)?;
        ensure!(!success, "`kubectl {arguments}` succeeded: {printed}");
        ensure!(printed.contains(wanted), "`kubectl {arguments}` did not print `{wanted}` but: {printed}");
        println!("ok: kubectl {arguments} is refused");
        Ok(())
    }

    /// Repeats the command until it prints `wanted`.
    fn comes_to_say(&self, arguments: &str, wanted: &str) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let (_, printed) = self.run(arguments, "")?;
            if printed.contains(wanted) {
                println!("ok: kubectl {arguments}");
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("`kubectl {arguments}` never printed `{wanted}` but: {printed}");
            }
        }
    }

    fn reads(&self) -> Result<()> {
        self.says("version", "", &["Server Version: v1.36"])?;
        self.says("get nodes -o wide", "", &["node-1", "Ready", "containerd"])?;
        self.says("get namespaces", "", &["default", "kube-system", "Active"])?;
        self.says("api-resources", "", &["deployments", "deploy", "apps/v1", "Deployment"])?;
        self.says("api-versions", "", &["apps/v1", "rbac.authorization.k8s.io/v1"])?;
        self.says("explain deployment.spec.replicas", "", &["FIELD: replicas", "integer"])?;
        self.says("auth can-i create pods", "", &["yes"])?;
        self.says("auth whoami", "", &["kubernetes-admin", "system:masters"])?;
        self.refuses("auth can-i create pods --as somebody", "", "no")?;
        self.says("cluster-info", "", &["is running at"])?;
        self.says("describe node node-1", "", &["Name:", "Capacity:", "Conditions:", "PodCIDRs:"])?;
        self.says("get --raw /readyz", "", &["ok"]).map(|_| ())
    }

    fn workloads(&self) -> Result<()> {
        self.says("apply -f -", EXAMPLE, &["deployment.apps/hello created", "service/hello created"])?;
        self.says("rollout status deployment hello --timeout 60s", "", &["successfully rolled out"])?;
        self.says("apply -f -", EXAMPLE, &["deployment.apps/hello unchanged"])?;
        self.says("diff -f -", EXAMPLE, &[])?;
        self.says("get pods -o wide -l app=hello", "", &["Running", "node-1", "10.244."])?;
        self.says(
            "get deploy,rs,svc,endpointslices -A",
            "",
            &["deployment.apps/hello", "3/3", "service/hello", "30080"],
        )?;
        self.says("get deployment hello -o jsonpath={.status.availableReplicas}", "", &["3"])?;
        self.says("get service hello -o yaml", "", &["clusterIPs:", "ipFamilies:"])?;
        self.says("describe deployment hello", "", &["ScalingReplicaSet", "3 available"])?;
        self.says("describe service hello", "", &["Endpoints:", ":8080"])?;
        self.says("wait --for=condition=Available deployment/hello --timeout 30s", "", &["condition met"])?;
        self.says("scale deployment hello --replicas 2", "", &["scaled"])?;
        self.comes_to_say("get deployment hello", "2/2")?;
        self.says("set env deployment/hello GREETING=hi", "", &["env updated"])?;
        self.says("rollout status deployment hello --timeout 60s", "", &["successfully rolled out"])?;
        self.says("rollout history deployment hello", "", &["1", "2"])?;
        self.says("rollout undo deployment hello", "", &["rolled back"])?;
        self.says("rollout status deployment hello --timeout 60s", "", &["successfully rolled out"])?;
        self.says("rollout restart deployment hello", "", &["restarted"])?;
        self.says("rollout status deployment hello --timeout 60s", "", &["successfully rolled out"])?;
        self.says("events", "", &["Scheduled", "Started"])?;
        self.settles()
    }

    /// The pods of earlier rollouts are gone, so that a name that was listed stays.
    fn settles(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        let leaving = "get pods -l app=hello -o jsonpath={.items[*].metadata.deletionTimestamp}";
        while !self.says(leaving, "", &[])?.is_empty() {
            ensure!(Instant::now() < deadline, "pods of earlier rollouts do not go away");
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    fn containers(&self) -> Result<()> {
        self.says("exec deploy/hello -- hostname", "", &["hello-"])?;
        self.says("exec -i deploy/hello -- cat", "through standard input", &["through standard input"])?;
        self.refuses("exec deploy/hello -- sh -c 'exit 7'", "", "exit code 7")?;
        self.says("exec deploy/hello -- sh -c 'echo to the log > /proc/1/fd/1'", "", &[])?;
        self.comes_to_say("logs -l app=hello", "to the log")?;
        self.follows_logs()?;
        self.forwards_a_port()?;
        self.proxies()
    }

    /// Requests reach pods and services through the API server.
    fn proxies(&self) -> Result<()> {
        let raw = "get --raw /api/v1/namespaces/default";
        self.says(&format!("{raw}/services/hello:80/proxy/"), "", &["hello-"])?;
        let pod =
            self.says("get pods -l app=hello -o jsonpath={.items[0].metadata.name}", "", &["hello-"])?;
        self.says(&format!("{raw}/pods/{pod}/proxy/"), "", &[&pod])?;
        self.says(&format!("{raw}/pods/http:{pod}:8080/proxy/some/path"), "", &[&pod])?;
        self.refuses(&format!("{raw}/pods/{pod}:1/proxy/"), "", "connection refused")
    }

    fn follows_logs(&self) -> Result<()> {
        let mut command = self.command("logs -f deploy/hello --pod-running-timeout 20s");
        let mut child = command.stdout(Stdio::piped()).spawn().context("start kubectl logs -f")?;
        let (said, heard) = std::sync::mpsc::channel();
        let mut out = child.stdout.take().context("a pipe")?;
        std::thread::spawn(move || {
            use std::io::Read;
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = out.read(&mut buffer) {
                if said.send(String::from_utf8_lossy(&buffer[..length]).into_owned()).is_err() {
                    return;
                }
            }
        });
        let pods = self.says("get pods -l app=hello -o name", "", &["pod/hello"])?;
        for pod in pods.lines() {
            self.says(&format!("exec {pod} -- sh -c 'echo live > /proc/1/fd/1'"), "", &[])?;
        }
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut all = String::new();
        while !all.contains("live") {
            let left = deadline.saturating_duration_since(Instant::now());
            let more = heard.recv_timeout(left);
            all += &more.with_context(|| format!("`logs -f` printed {all:?}"))?;
        }
        child.kill()?;
        child.wait()?;
        println!("ok: kubectl logs -f");
        Ok(())
    }

    fn forwards_a_port(&self) -> Result<()> {
        let mut command = self.command("port-forward service/hello 18080:80");
        let mut child = command.stdout(Stdio::piped()).spawn().context("start kubectl port-forward")?;
        let deadline = Instant::now() + Duration::from_secs(20);
        let answer = loop {
            match http_get("127.0.0.1:18080") {
                Ok(answer) => break Ok(answer),
                Err(error) if Instant::now() > deadline => break Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        };
        child.kill()?;
        child.wait()?;
        let answer = answer.context("through the forwarded port")?;
        ensure!(answer.contains("hello-"), "the forwarded port answered {answer:?}");
        println!("ok: kubectl port-forward");
        Ok(())
    }

    fn writes(&self) -> Result<()> {
        let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {a: '1'}\n";
        self.says("create -f -", map, &["configmap/settings created"])?;
        self.refuses("create -f -", map, "AlreadyExists")?;
        self.says("label configmap settings tier=gold", "", &["labeled"])?;
        self.says("annotate configmap settings note=kept", "", &["annotated"])?;
        self.says(r#"patch configmap settings -p {"data":{"b":"2"}}"#, "", &["patched"])?;
        self.says(
            r#"patch configmap settings --type json -p [{"op":"remove","path":"/data/a"}]"#,
            "",
            &["patched"],
        )?;
        self.says("get configmap settings -o json", "", &["\"b\": \"2\"", "\"tier\": \"gold\""])?;
        self.says(
            "apply --server-side -f -",
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {c: '3'}\n",
            &["serverside-applied"],
        )?;
        self.refuses(
            "apply --server-side --field-manager other -f -",
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {c: '4'}\n",
            "conflict",
        )?;
        self.edits()?;
        self.says("create namespace team", "", &["created"])?;
        self.says("create secret generic key --from-literal=k=v -n team", "", &["created"])?;
        self.says("create serviceaccount robot -n team", "", &["created"])?;
        self.says("create token robot -n team", "", &["ey"])?;
        self.says("create role reader --verb=get,list --resource=pods -n team", "", &["created"])?;
        self.says(
            "create rolebinding robots --role=reader --serviceaccount=team:robot -n team",
            "",
            &["created"],
        )?;
        self.says("auth can-i list pods -n team --as system:serviceaccount:team:robot", "", &["yes"])?;
        self.refuses("auth can-i delete pods -n team --as system:serviceaccount:team:robot", "", "no")
    }

    /// `kubectl edit` with an editor that is a stream editor.
    fn edits(&self) -> Result<()> {
        let output =
            self.command("edit configmap settings").env("KUBE_EDITOR", "sed -i s/gold/silver/").output()?;
        ensure!(output.status.success(), "edit: {}", String::from_utf8_lossy(&output.stderr));
        self.says("get configmap settings -o yaml", "", &["tier: silver"]).map(|_| ())
    }

    fn errors(&self) -> Result<()> {
        self.refuses("get pod nobody", "", "NotFound")?;
        self.refuses("get widgets", "", "the server doesn't have a resource type")?;
        self.refuses("create -f -", "apiVersion: v1\nkind: Pod\nmetadata: {name: Bad_Name}\nspec: {containers: [{name: c, image: i}]}\n", "metadata.name")?;
        self.refuses(
            "create -f -",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: empty}\nspec: {containers: []}\n",
            "spec.containers",
        )?;
        self.refuses(
            "create -f -",
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: odd}\ndatum: {a: b}\n",
            "unknown field",
        )?;
        self.refuses(
            "create -f -",
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: odd}\ndata: [1]\n",
            "data",
        )
    }

    fn deletes(&self) -> Result<()> {
        self.says("delete configmap settings", "", &["deleted"])?;
        self.says("delete namespace team --timeout 30s", "", &["deleted"])?;
        self.refuses("get namespace team", "", "NotFound")?;
        let held =
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: held, finalizers: [example.com/hold]}\n";
        self.says("apply -f -", held, &["created"])?;
        self.says("delete configmap held --wait=false", "", &["deleted"])?;
        self.says("get configmap held -o yaml", "", &["deletionTimestamp"])?;
        self.says(
            r#"patch configmap held --type json -p [{"op":"remove","path":"/metadata/finalizers"}]"#,
            "",
            &["patched"],
        )?;
        self.refuses("get configmap held", "", "NotFound")?;
        self.says("delete -f -", EXAMPLE, &["deleted"])?;
        self.comes_to_say("get pods,replicasets,endpointslices -l app=hello", "No resources found")
    }
}

/// Splits at spaces; single quotes keep them.
fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for letter in text.chars() {
        match letter {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            other => words.last_mut().expect("there is a word").push(other),
        }
    }
    words
}

fn http_get(address: &str) -> Result<String> {
    use std::io::Read;
    let mut stream = std::net::TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(3)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: hello\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "answered {answer:?}");
    Ok(answer)
}
