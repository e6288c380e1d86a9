//! `hawser-local`: a whole cluster on this machine, behind `cargo xtask up`, `down` and `bench`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use e2e::{Binaries, Call, Cluster, Layout};

#[derive(Parser)]
#[command(name = "hawser-local", about = "A whole Hawser cluster on one machine")]
struct Cli {
    /// Another cluster than the usual one, as NAME:INDEX; for tests, which must not disturb it.
    #[arg(long, hide = true, default_value = "up:0")]
    layout: Layout,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Bring the cluster up, apply the example and call it.
    Up {
        /// Nodes, each a network namespace with its own containerd.
        #[arg(long, default_value_t = 1)]
        nodes: u8,
        /// Keep the objects in this etcd instead of the embedded store.
        #[arg(long)]
        etcd: Option<PathBuf>,
    },
    /// Stop the cluster and remove everything but its objects.
    Down {
        /// Remove the objects too.
        #[arg(long)]
        purge: bool,
    },
    /// Measure on clusters of its own and print the figures.
    Bench,
    /// Write the image that `deploy/hawser.yaml` names.
    #[command(hide = true)]
    Image {
        /// Static programs.
        #[arg(long)]
        agent: PathBuf,
        #[arg(long)]
        plugin: PathBuf,
        #[arg(long)]
        name: String,
        #[arg(long)]
        to: PathBuf,
    },
    /// Write the example's image.
    #[command(hide = true)]
    HelloImage {
        #[arg(long)]
        program: PathBuf,
        #[arg(long)]
        to: PathBuf,
    },
    /// Call the example; prints who answered and how fast.
    #[command(hide = true)]
    Call {
        address: SocketAddr,
        #[arg(long)]
        udp: bool,
        #[arg(long)]
        pods: Option<usize>,
        #[arg(long)]
        strict: bool,
        #[arg(long)]
        seconds: u64,
    },
}

fn main() -> Result<()> {
    let Cli { layout, command } = Cli::parse();
    match command {
        Command::Up { nodes, etcd } => runtime()?.block_on(up(layout, nodes, etcd)),
        Command::Down { purge } => {
            e2e::down(&layout, purge)?;
            println!(
                "down: {}",
                if purge { "nothing is left" } else { "nothing is left but the cluster's objects" }
            );
            Ok(())
        }
        Command::Bench => runtime()?.block_on(e2e::bench::run(binaries()?)),
        Command::Image { agent, plugin, name, to } => {
            let archive = e2e::image::release_image(&name, &agent, &plugin)?;
            std::fs::write(&to, &archive).with_context(|| format!("write {}", to.display()))?;
            println!("{name}: {} ({:.1} MiB)", to.display(), archive.len() as f64 / f64::from(1 << 20));
            Ok(())
        }
        Command::HelloImage { program, to } => {
            let archive = e2e::image::program_image(e2e::image::HELLO, &program)?;
            std::fs::write(&to, archive).with_context(|| format!("write {}", to.display()))
        }
        Command::Call { address, udp, pods, strict, seconds } => {
            Call { address, udp, pods, strict, time: Duration::from_secs(seconds) }.run()
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("start the runtime")
}

fn binaries() -> Result<Binaries> {
    let this: PathBuf = std::env::current_exe().context("find this program")?;
    Binaries::below(this.parent().context("this program lies in a folder")?)
}

async fn up(layout: Layout, nodes: u8, etcd: Option<PathBuf>) -> Result<()> {
    let began = Instant::now();
    let tell = |line: &str| println!("up: {line}");
    let cluster = Cluster::up(layout, nodes, Binaries { etcd, ..binaries()? }, &tell).await?;
    e2e::demo(&cluster, &tell).await?;
    println!("up: everything above took {:.1?}\n", began.elapsed());
    cluster.import_agent()?;
    let kubeconfig = cluster.layout.kubeconfig();
    println!("The cluster stays up until `cargo xtask down`. Worth trying:\n");
    println!("  export KUBECONFIG={}", kubeconfig.display());
    println!("  hawser-agent check --scope traffic --kubeconfig $KUBECONFIG");
    for line in [
        "kubectl get nodes,pods,services -o wide",
        "kubectl scale deployment hello --replicas=5 && kubectl rollout status deployment hello",
        "kubectl logs -l app=hello --prefix",
        "kubectl exec -it deploy/hello -- sh",
        "kubectl port-forward service/hello 8080:80",
    ] {
        println!("  {line}");
    }
    Ok(())
}
