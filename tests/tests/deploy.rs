//! The cluster of containers, run by the commands of docs/operations.md as they stand there: a stock client works in it while containers are
//! killed and replaced, what it wrote is backed up, deleted and brought back, and the servers tell one story.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // A test may stop at the first surprise.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use slice_tests::guest::{Guest, Mount, Spec};
use slice_tests::manual;
use slice_tests::{paths, process};

/// Containers come and go, and the client delays each reconnection by seconds.
const LIMIT: Duration = Duration::from_secs(600);

/// The guest has its files in memory, and the client's unwritten pages.
const MEMORY_MIB: u32 = 1024;

/// A short one: seconds of the SFS mix at two loads.
const WORKLOAD: &str = "--quick --peak 100 --points 2 --seed 7 --uid 1001 --gid 1001";

/// A cluster of a test's own, named after this process. When it is dropped it is taken away with its data and its image.
struct Cluster {
    manual: BTreeMap<String, Vec<String>>,
    environment: Vec<(String, String)>,
    project: String,
    image: String,
    port: u16,
    status_port: u16,
    log: PathBuf,
    /// First argument of `deploy/compose`.
    compose: &'static str,
    scratch: tempfile::TempDir,
}

impl Cluster {
    fn new(name: &str, compose: &'static str) -> Self {
        let project = format!("slice-{name}-{}", std::process::id());
        let image = format!("slice:{project}");
        let port = process::free_port().unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let folder = paths::target().join("deploy");
        fs::create_dir_all(&folder).unwrap();
        let log = folder.join(format!("{name}.log"));
        File::create(&log).unwrap();
        let backup = scratch.path().join("backup").display().to_string();
        let identity = scratch.path().join("identity").display().to_string();
        let mut cluster = Self {
            manual: manual::commands("deploy"),
            environment: Vec::new(),
            project: project.clone(),
            image: image.clone(),
            port,
            status_port: process::free_port().unwrap(),
            log,
            compose,
            scratch,
        };
        cluster.set("COMPOSE_PROJECT_NAME", &project);
        cluster.set("SLICE_IMAGE", &image);
        cluster.set("NFS_ADDRESS", "127.0.0.1");
        cluster.set("NFS_PORT", &port.to_string());
        cluster.set("STATUS_PORT", &cluster.status_port.to_string());
        cluster.set("BACKUP", &backup);
        cluster.set("IDENTITY", &identity);
        cluster
    }

    fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Runs a line of shell in the workspace: what it prints.
    fn try_run(&self, line: &str) -> Result<String, String> {
        let mut log = File::options().append(true).open(&self.log).unwrap();
        writeln!(log, "$ {line}").unwrap();
        let mut command = Command::new("sh");
        command.args(["-ec", line]).current_dir(paths::workspace());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let output = command.stderr(log.try_clone().unwrap()).output().unwrap();
        log.write_all(&output.stdout).unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() { Ok(text) } else { Err(format!("{line}: {}\n{text}", output.status)) }
    }

    fn run(&self, line: &str) -> String {
        self.try_run(line).unwrap_or_else(|error| {
            // What the servers say is gone with them.
            let _ = self.try_run(&format!("deploy/compose {} logs --tail 100", self.compose));
            panic!("{error}\nall of it is in {}", self.log.display())
        })
    }

    /// Runs the commands of this name in docs/operations.md: what they print.
    fn follow(&self, name: &str) -> String {
        let commands = self.manual.get(name).unwrap_or_else(|| panic!("docs/operations.md has no {name}"));
        commands.iter().map(|line| self.run(&line.replace("slice:local", &self.image))).collect()
    }

    /// Of the containers of a service: what `docker inspect` says to this format.
    fn inspect(&self, service: &str, format: &str) -> String {
        let filters = format!(
            "--filter label=com.docker.compose.project={} --filter label=com.docker.compose.service={service}",
            self.project
        );
        let said =
            self.run(&format!("docker inspect --format '{format}' $(docker ps --all --quiet {filters})"));
        said.trim().to_owned()
    }

    fn address(&self, service: &str) -> String {
        self.inspect(service, "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}")
    }

    /// Everything that carries the project's name.
    fn remains(&self) -> String {
        let label = format!("--filter label=com.docker.compose.project={}", self.project);
        self.run(&format!(
            "docker ps --all --quiet {label}; docker volume ls --quiet {label}; docker network ls --quiet {label}"
        ))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Gone already if the test has come to its end.
        let _ = self.try_run(&format!("deploy/compose {} down --volumes --timeout 5", self.compose));
        let _ = self.try_run(&format!("docker image rm {} || true", self.image));
    }
}

/// A way to disturb the cluster, and what it is called in the guest's log.
type Strike = (&'static str, fn(&mut Cluster));

const STRIKES: [Strike; 5] = [
    ("proxy crashed, the engine started it again", crash_proxy),
    ("dirserver-1 killed and started", |cluster| kill_and_start(cluster, "dirserver-1")),
    ("smallfile-1 and blockstore-1 killed, and started under each other's address", swap_addresses),
    ("coordinator killed and started", |cluster| kill_and_start(cluster, "coordinator")),
    ("every container replaced", replace_all),
];

/// SIGKILL from outside the engine is no stop that it was asked for.
fn crash_proxy(cluster: &mut Cluster) {
    let pid = cluster.inspect("proxy", "{{.State.Pid}}").parse().unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

fn kill_and_start(cluster: &mut Cluster, services: &str) {
    cluster.run(&format!("deploy/compose kill -s SIGKILL {services}"));
    cluster.run(&format!("deploy/compose start {services}"));
}

/// The engine gives a container that starts the first address that is free.
fn swap_addresses(cluster: &mut Cluster) {
    let services = ["smallfile-1", "blockstore-1"];
    let before = services.map(|service| cluster.address(service));
    cluster.run("deploy/compose kill -s SIGKILL smallfile-1 blockstore-1");
    let number = |address: &str| address.rsplit('.').next().unwrap().parse::<u8>().unwrap();
    // The one with the greater number first: it gets the other's.
    let [first, second] =
        if number(&before[0]) > number(&before[1]) { services } else { [services[1], services[0]] };
    cluster.run(&format!("deploy/compose start {first}"));
    cluster.run(&format!("deploy/compose start {second}"));
    let after = services.map(|service| cluster.address(service));
    assert_ne!(before, after, "the addresses are the same: this shows nothing");
}

/// Another setting is another container, as another program is.
fn replace_all(cluster: &mut Cluster) {
    let before = cluster.inspect("dirserver-2", "{{.Id}}");
    cluster.set("RUST_LOG", "info");
    cluster.follow("upgrade");
    assert_ne!(before, cluster.inspect("dirserver-2", "{{.Id}}"), "nothing was replaced");
}

fn boot_client(cluster: &Cluster) -> Guest {
    let mut spec = Spec::new("deploy").mount(Mount::new(cluster.port)).limit(LIMIT).memory_mib(MEMORY_MIB);
    spec.image().tree(&paths::workspace().join("proxy/src"), "/real").unwrap();
    spec.boot(&include_str!("guest/deploy.sh").replace("@ROUNDS@", &STRIKES.len().to_string())).unwrap()
}

#[test]
#[ignore = "docker: run by cargo xtask test"]
fn compose_cluster() {
    let mut cluster = Cluster::new("compose", "");
    let said = cluster.follow("deploy");
    assert!(
        said.contains(&format!("port={0},mountport={0},nolock 127.0.0.1:/ /mnt", cluster.port)),
        "{said}"
    );
    assert!(cluster.follow("look").contains("serving, table epoch"));
    // As clients see it, through the published port.
    let slice = format!("docker run --rm --network host {}", cluster.image);
    cluster.run(&format!("{slice} health 127.0.0.1:{} --export /", cluster.port));

    let metrics = get(cluster.status_port, "/metrics");
    let serving = |line: &str| line.starts_with("slice_serving") && line.ends_with(" 1");
    assert!(metrics.lines().any(serving), "{metrics}");
    assert!(get(cluster.status_port, "/").contains("<html "));

    let mut guest = boot_client(&cluster);
    for (round, (name, strike)) in (1..).zip(STRIKES) {
        guest.wait_mark(&format!("going-{round}")).unwrap();
        strike(&mut cluster);
        guest.say(name).unwrap();
        guest.wait_mark(&format!("remove-{round}")).unwrap();
        if round == 1 {
            assert_eq!(cluster.inspect("proxy", "{{.RestartCount}}"), "1");
        }
    }
    guest.wait_mark("kept").unwrap();
    // Every reply is checked; a wrong one is an error.
    cluster.run(&format!("{slice} load sfs --target 127.0.0.1:{} {WORKLOAD}", cluster.port));
    assert!(cluster.follow("check").starts_with("clean"));
    cluster.follow("backup");
    cluster.run("deploy/down --volumes");
    assert_eq!(cluster.remains(), "");
    cluster.follow("restore");
    guest.say("backed up, deleted, restored").unwrap();
    let outcome = guest.finish().unwrap().check().unwrap();
    for mark in outcome.marks.iter().filter(|mark| !mark.text.is_empty()) {
        println!("{} {}", mark.name, mark.text);
    }
    assert!(cluster.follow("check").starts_with("clean"));
    refuses_other_numbers(&cluster);
    cluster.follow("down");
    assert_eq!(cluster.remains(), "");
}

/// What a browser on this host gets.
fn get(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// What cannot be is told before anything is changed.
fn refuses_other_numbers(cluster: &Cluster) {
    let refused = cluster.try_run("DIRSERVERS=3 deploy/up 2>&1").unwrap_err();
    assert!(refused.contains("was made with other numbers of servers"), "{refused}");
    let refused = cluster.try_run("deploy/restore \"$BACKUP\" 2>&1").unwrap_err();
    assert!(refused.contains("has data"), "{refused}");
}

#[test]
#[ignore = "docker: run by cargo xtask test"]
fn several_hosts() {
    // Two addresses of this machine's loopback are two hosts to servers on the host's network.
    let net = format!("127.{}.{}", std::process::id() / 250 % 250 + 1, std::process::id() % 250 + 1);
    let mut first = Cluster::new("host-1", "--hosts");
    let mut second = Cluster::new("host-2", "--hosts");
    second.image.clone_from(&first.image);
    let (image, identity) = (first.image.clone(), first.scratch.path().join("identity"));
    for (cluster, host, roles) in [
        (&mut first, 1, "coordinator,dirserver,blockstore,proxy"),
        (&mut second, 2, "dirserver,smallfile,blockstore"),
    ] {
        cluster.set("SLICE_IMAGE", &image);
        cluster.set("IDENTITY", identity.to_str().unwrap());
        cluster.set("ADDRESS", &format!("{net}.{host}"));
        cluster.set("METRICS_ADDRESS", &format!("{net}.{host}"));
        cluster.set("COORDINATOR", &format!("{net}.1:2051"));
        cluster.set("COMPOSE_PROFILES", roles);
        for (role, count) in [("DIRSERVERS", "2"), ("SMALLFILES", "1"), ("BLOCKSTORES", "2")] {
            cluster.set(role, count);
        }
    }
    first.follow("image");
    first.follow("identity");
    second.follow("hosts");
    first.follow("hosts");
    let slice = format!("docker run --rm --network host {image}");
    first.run(&format!("{slice} health {net}.1:{} --export / --timeout 60", first.port));
    // A secret that anybody on the host may read is refused.
    first.run("chmod 444 \"$IDENTITY\"");
    let mounted = format!("docker run --rm --network host --volume \"$IDENTITY\":/key:ro {image}");
    let status = format!("{mounted} status --coordinator {net}.1:2051 --identity /key");
    assert!(first.try_run(&format!("{status} 2>&1")).unwrap_err().contains("others may read it"));
    first.run("chmod 400 \"$IDENTITY\"");
    let said = first.run(&status);
    for role in ["dirserver", "blockstore"] {
        assert_eq!(said.lines().filter(|line| line.starts_with(role)).count(), 2, "{said}");
    }
    for cluster in [&second, &first] {
        cluster.run("deploy/compose --hosts down --volumes --timeout 30");
        assert_eq!(cluster.remains(), "");
    }
}

/// Each with the tool that knows it best; those that are missing here are named.
#[test]
#[ignore = "docker: run by cargo xtask test"]
fn files() {
    let output = Command::new(Path::new("deploy/check")).current_dir(paths::workspace()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_manual_has_commands_for_all_that_is_tested() {
    let names =
        ["backup", "check", "deploy", "down", "hosts", "identity", "image", "look", "restore", "upgrade"];
    assert_eq!(manual::commands("deploy").keys().collect::<Vec<_>>(), names);
}
