//! The program from outside: sentences for mistakes, a start that finds everything again, servers that are started
//! again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // A test may stop at the first surprise.

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::Duration;

/// Between looks at what another process does.
const TICK: Duration = Duration::from_millis(20);
/// Looks until something is taken to be stuck: two minutes, as the machine may be busy.
const PATIENCE: u32 = 6000;

fn slice(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slice"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs it to its end, which must come by itself.
fn run(arguments: &[&str]) -> Output {
    let mut child = slice(arguments).spawn().unwrap();
    for _ in 0..PATIENCE {
        if child.try_wait().unwrap().is_some() {
            return child.wait_with_output().unwrap();
        }
        std::thread::sleep(TICK);
    }
    child.kill().unwrap();
    let said = child.wait_with_output().unwrap();
    panic!("{arguments:?} did not end: {}", String::from_utf8_lossy(&said.stderr));
}

/// A port that is free now, below those that systems give to outgoing connections and those that `slice up` draws, and that
/// no other test of this process was given: two that draw at random meet sooner than one thinks.
fn port() -> u16 {
    static NEXT: LazyLock<AtomicU16> =
        LazyLock::new(|| AtomicU16::new(10_000 + u16::try_from(getrandom::u32().unwrap() % 9000).unwrap()));
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    std::iter::repeat_with(|| NEXT.fetch_add(1, Ordering::Relaxed)).find(free).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A running `slice`; killed when dropped.
struct Running {
    child: Child,
    mount: String,
}

impl Running {
    /// Starts it and waits for its mount command.
    fn start(arguments: &[&str]) -> Self {
        let mut child = slice(arguments).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mount = lines.map_while(Result::ok).find(|line| line.contains("mount -t nfs"));
        let Some(mount) = mount else {
            let mut said = String::new();
            child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            panic!("{arguments:?} did not come up: {said}");
        };
        Self { child, mount }
    }

    fn up(dir: &Path, port: u16, more: &[&str]) -> Self {
        let listen = format!("127.0.0.1:{port}");
        let mut all = vec!["up", "--data", text(dir), "--listen", &listen, "--threads", "1"];
        all.extend(more);
        Self::start(&all)
    }

    /// SIGTERM: it ends cleanly.
    fn stop(mut self) {
        signal(self.child.id(), Signal::TERM);
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pid(raw: u32) -> Pid {
    Pid::from_raw(i32::try_from(raw).unwrap()).unwrap()
}

fn signal(raw: u32, signal: Signal) {
    kill_process(pid(raw), signal).unwrap();
}

fn alive(raw: u32) -> bool {
    let zombie = std::fs::read_to_string(format!("/proc/{raw}/stat")).is_ok_and(|s| s.contains(") Z "));
    !zombie && test_kill_process(pid(raw)).is_ok()
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..PATIENCE {
        if done() {
            return;
        }
        std::thread::sleep(TICK);
    }
    panic!("waited in vain until {what}");
}

fn ensemble(dir: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(dir.join("ensemble.json")).unwrap()).unwrap()
}

/// Role and id of everything that keeps a store.
fn ids(dir: &Path) -> Vec<(String, String)> {
    let servers = ensemble(dir)["servers"].as_array().unwrap().clone();
    let field = |s: &Value, name: &str| s[name].as_str().unwrap().to_owned();
    let of = |s: &Value| (field(s, "role"), field(s, "id"));
    let mut all: Vec<_> = servers.iter().map(of).filter(|(role, _)| role != "proxy").collect();
    all.sort();
    all
}

/// Process of the first server of a role.
fn process(dir: &Path, role: &str) -> u32 {
    let servers = ensemble(dir)["servers"].as_array().unwrap().clone();
    let server = servers.iter().find(|s| s["role"] == role).unwrap();
    u32::try_from(server["pid"].as_u64().unwrap()).unwrap()
}

fn status(dir: &Path) -> Value {
    let out = run(&["status", "--data", text(dir), "--json"]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

#[test]
fn every_mistake_gets_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let d = text(dir.path());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let stray = dir.path().join("stray");
    std::fs::create_dir(&stray).unwrap();
    std::fs::write(stray.join("thing"), "").unwrap();
    let readable = dir.path().join("readable");
    std::fs::write(&readable, "").unwrap();
    let config = dir.path().join("config.toml");
    std::fs::write(&config, "[up]\nlistem = \"x\"").unwrap();
    let new = dir.path().join("new");
    let (new, stray, readable, config) = (text(&new), text(&stray), text(&readable), text(&config));
    let cases: &[(&[&str], &str)] = &[
        (&["up", "--listen", "foo"], "give an IP address and a port"),
        (&["up", "--policy", "best"], "give partition, mkdir"),
        (&["up", "--policy", "mkdir:7"], "number from 0 to 1"),
        (&["up", "--dirservers", "0"], "give a number from 1 to 256"),
        (&["up", "--store", "redb"], "use fjall or sled"),
        (&["up", "--root-mode", "rwx"], "in octal"),
        (&["up", "--root-owner", "root"], "as in 1000:1000"),
        (&["up", "--frobnicate"], "--frobnicate"),
        (&["up", "--data", "/dev/null/x"], "cannot make /dev/null/x"),
        (&["up", "--data", stray], "holds thing, but no ensemble: give a new or an empty directory"),
        (&["up", "--data", new, "--listen", &taken], "another program listens there"),
        (&["up", "--data", new, "--listen", "192.0.2.1:2049"], "no address of this machine"),
        (&["up", "--data", new, "--allow", "10.0.0.0/99"], "10.0.0.0/99"),
        (&["up", "--config", "/no/such/file"], "check the path"),
        (&["up", "--config", config], "\"listem\", which is no flag of `slice up`"),
        (&["dirserver"], "needs --data DIR"),
        (&["smallfile", "--data", d], "needs --coordinator HOST:PORT"),
        (&["blockstore", "--data", d, "--coordinator", "h:1"], "needs --identity FILE"),
        (&["blockstore", "--data", d, "--coordinator", "h"], "give a host and a port"),
        (&["proxy", "--coordinator", "h:1", "--identity", "/no/such/file"], "is not there: give --identity"),
        (&["proxy", "--coordinator", "h:1", "--identity", readable], "chmod 600"),
        (&["proxy"], "or --data DIR of a running `slice up`"),
        (&["coordinator", "--data", d, "--identity", "/no/such/file"], "is not there"),
        (&["status"], "which ensemble? give --data DIR"),
        (&["status", "--data", d], "no `slice up` runs on this directory"),
    ];
    for (arguments, expected) in cases {
        let out = run(arguments);
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
    let free = format!("127.0.0.1:{}", port());
    let out = run(&["health", &free, "--timeout", "1"]);
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stderr).contains("nothing answers"));
}

#[test]
fn a_second_start_finds_everything_and_a_second_at_once_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let port = port();
    let first = Running::up(dir, port, &["--blockstores", "3", "--policy", "hash"]);
    assert!(first.mount.contains(&format!("port={port},mountport={port}")), "{}", first.mount);
    let before = ids(dir);
    assert_eq!(before.len(), 6);
    let shown = status(dir);
    assert_eq!((&shown["phase"], &shown["table_epoch"]), (&"serving".into(), &1.into()));
    assert_eq!(shown["volumes"][0]["policy"], "hash");
    assert!(run(&["health", &format!("127.0.0.1:{port}")]).status.success());

    let refused = run(&["up", "--data", text(dir), "--listen", &format!("127.0.0.1:{port}")]);
    assert_eq!(refused.status.code(), Some(2));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains(&format!("in use by another `slice up` (process {})", first.child.id())), "{said}");
    assert_eq!(ids(dir), before);
    first.stop();
    assert!(!dir.join("ensemble.json").exists());

    // The flags need not be said again, and must not be contradicted.
    let refused =
        run(&["up", "--data", text(dir), "--listen", &format!("127.0.0.1:{port}"), "--blockstores", "4"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("formatted with --blockstores 3"));
    let second = Running::up(dir, port, &[]);
    assert_eq!(ids(dir), before);
    assert_eq!(status(dir)["table_epoch"], 1);

    // Another µproxy of the same ensemble, told only its directory.
    let other = Running::start(&["proxy", "--data", text(dir), "--listen", "127.0.0.1:0", "--threads", "1"]);
    let proxies =
        || status(dir)["servers"].as_array().unwrap().iter().filter(|s| s["role"] == "proxy").count();
    assert_eq!(proxies(), 2);
    other.stop();
    second.stop();
}

/// Servers' ports are drawn seconds before the servers listen: no two ensembles may draw the same.
#[test]
fn two_dozen_ensembles_start_at_once() {
    let dirs: Vec<_> = (0..24).map(|_| tempfile::tempdir().unwrap()).collect();
    std::thread::scope(|scope| {
        let start = |(i, dir): (usize, &tempfile::TempDir)| {
            let dir = dir.path().to_owned();
            scope.spawn(move || Running::up(&dir, port(), if i % 8 == 0 { &["--separate"] } else { &[] }))
        };
        let starting: Vec<_> = dirs.iter().enumerate().map(start).collect();
        let running: Vec<_> = starting.into_iter().map(|thread| thread.join().unwrap()).collect();
        let servers = dirs.iter().flat_map(|dir| ensemble(dir.path())["servers"].as_array().unwrap().clone());
        let mut addresses: Vec<_> =
            servers.flat_map(|server| server["addresses"].as_array().unwrap().clone()).collect();
        // µproxy, coordinator with its control plane, four servers.
        assert_eq!(addresses.len(), 24 * 7);
        addresses.sort_by_key(Value::to_string);
        addresses.dedup();
        assert_eq!(addresses.len(), 24 * 7);
        running.into_iter().for_each(Running::stop);
    });
}

/// For those who hand secrets out themselves.
#[test]
fn a_new_identity_is_for_its_owner_and_replaces_none() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("identity");
    assert!(run(&["admin", "new-identity", text(&file)]).status.success());
    let made = std::fs::read_to_string(&file).unwrap();
    assert_eq!(run(&["admin", "new-identity", text(&file)]).status.code(), Some(2));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), made);
    let printed = run(&["admin", "new-identity", "-"]);
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert!(printed.contains("secret = ") && printed.len() == made.len() && printed != made, "{printed}");
}

/// I4: a store that is gone is never replaced by an empty one.
#[test]
fn a_lost_store_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let port = port();
    Running::up(dir, port, &[]).stop();
    std::fs::remove_dir_all(dir.join("blockstore-1")).unwrap();
    let listen = format!("127.0.0.1:{port}");
    for more in [&[][..], &["--separate"]] {
        let mut arguments = vec!["up", "--data", text(dir), "--listen", &listen];
        arguments.extend(more);
        let out = run(&arguments);
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{said}");
        assert!(said.contains("holds no store, and the ensemble has all its blockstores"), "{said}");
    }
}

#[test]
fn children_are_started_again_and_die_with_their_parent() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let port = port();
    let mut up = Running::up(dir, port, &["--separate", "--dirservers", "2"]);
    let before = ids(dir);
    for role in ["dirserver", "smallfile", "blockstore", "coordinator", "proxy"] {
        let old = process(dir, role);
        assert_ne!(old, up.child.id());
        signal(old, Signal::KILL);
        wait_until("it is started again", || process(dir, role) != old);
    }
    wait_until("all answer again", || {
        let out = run(&["status", "--data", text(dir), "--json"]);
        let shown: Option<Value> = serde_json::from_slice(&out.stdout).ok();
        let heard = |s: &Value| s["heartbeat_age_ms"].as_u64().is_some();
        shown.is_some_and(|s| s["servers"].as_array().unwrap().iter().filter(|s| heard(s)).count() == 7)
    });
    assert_eq!(ids(dir), before);
    assert!(run(&["health", &format!("127.0.0.1:{port}"), "--timeout", "30"]).status.success());

    let servers = ensemble(dir)["servers"].as_array().unwrap().clone();
    let pids: Vec<u32> = servers.iter().map(|s| u32::try_from(s["pid"].as_u64().unwrap()).unwrap()).collect();
    up.child.kill().unwrap();
    up.child.wait().unwrap();
    wait_until("all children are gone", || pids.iter().all(|pid| !alive(*pid)));

    // And once more, this time to a clean end.
    let again = Running::up(dir, port, &["--separate"]);
    assert_eq!(ids(dir), before);
    let pid = process(dir, "dirserver");
    again.stop();
    assert!(!alive(pid));
}

/// True as soon as this goes, by a panic too: who waits for it must not wait for ever.
struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// From the mount command to the stop `ensemble.json` is there and whole, whatever children die meanwhile.
#[test]
fn ensemble_json_is_never_missed() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let up = Running::up(dir, port(), &["--separate"]);
    let killed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut looks = 0_u64;
            while !killed.load(Ordering::Relaxed) {
                assert_eq!(ensemble(dir)["servers"].as_array().unwrap().len(), 6);
                looks += 1;
            }
            looks
        });
        let done = SetAtEnd(&killed);
        for role in ["dirserver", "blockstore", "proxy", "smallfile", "coordinator", "dirserver"] {
            let old = process(dir, role);
            signal(old, Signal::KILL);
            wait_until("it is started again", || process(dir, role) != old || reader.is_finished());
        }
        drop(done);
        assert!(reader.join().unwrap() > 0);
    });
    // A child that dies during the stop does not bring it back.
    signal(process(dir, "dirserver"), Signal::KILL);
    up.stop();
    assert!(!dir.join("ensemble.json").exists());
}

/// What several machines do: a coordinator, then servers that find it, in any order.
#[test]
fn roles_alone_form_an_ensemble() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let control = format!("127.0.0.1:{}", port());
    let identity = at("identity");
    std::fs::write(
        dir.path().join("c.toml"),
        "[coordinator]\nformat = true\ndirservers = 1\nsmallfiles = 1\nblockstores = 1\npolicy = \"partition\"\n",
    )
    .unwrap();
    let killed = |mut command: Command| Running { child: command.spawn().unwrap(), mount: String::new() };
    let mut servers = vec![killed(slice(&[
        "coordinator",
        "--data",
        &at("c"),
        "--identity",
        &identity,
        "--control",
        &control,
        "--config",
        &at("c.toml"),
    ]))];
    wait_until("the identity is made", || Path::new(&identity).exists());
    for role in ["blockstore", "smallfile", "dirserver"] {
        servers.push(killed(slice(&[
            role,
            "--data",
            &at(role),
            "--coordinator",
            &control,
            "--identity",
            &identity,
        ])));
    }
    let proxy = Running::start(&[
        "proxy",
        "--listen",
        "127.0.0.1:0",
        "--coordinator",
        &control,
        "--identity",
        &identity,
    ]);
    let out = run(&["status", "--coordinator", &control, "--identity", &identity]);
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(said.contains("serving, table epoch 1") && said.contains("volume /: partition"), "{said}");
    proxy.stop();

    // A server with a store of its own making is not let into a formatted ensemble.
    let out = run(&["blockstore", "--data", &at("late"), "--coordinator", &control, "--identity", &identity]);
    assert_eq!(out.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&out.stderr).contains("the ensemble has all its blockstores"));
    assert!(!Path::new(&at("late")).exists());
    for server in servers.into_iter().rev() {
        server.stop();
    }
}
