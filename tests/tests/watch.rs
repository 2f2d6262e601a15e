//! Watching an ensemble while it works: metrics count what was sent, exactly; what is shipped for Prometheus and Grafana names
//! metrics that exist; requests are found in the logs of both ends; the status page shows what there is, in a browser.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // A test may stop at the first surprise.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use slice_load::client::{Client, mount, must};
use slice_proto::nfs3::{CreateHow, NfsStat3, Proc3, Res3, Sattr3, StableHow};
use slice_proto::rpc_msg::Cred;
use slice_tests::ensemble::{Ensemble, Layout, Options, Policy, binary};
use slice_tests::process::{Process, clean, free_port};
use slice_tests::watching::{Scrape, get};
use slice_tests::wire;
use slice_tests::{manual, paths};

/// No claim on speed: what does not come within this does not come.
const LIMIT: Duration = Duration::from_secs(90);

fn start(name: &str, layout: Layout, more: &[&str]) -> (Ensemble, String) {
    let port = free_port().unwrap();
    let page = format!("127.0.0.1:{port}");
    let mut options = Options::new(Policy::Hash, layout);
    options.more = ["--metrics", &page].iter().chain(more).map(|s| (*s).to_owned()).collect();
    (Ensemble::start(name, options).unwrap(), page)
}

/// Where every server's metrics answer, by `ensemble.json`.
fn metrics(ensemble: &Ensemble) -> Vec<String> {
    let text = fs::read_to_string(ensemble.data().join("ensemble.json")).unwrap();
    let file: Value = serde_json::from_str(&text).unwrap();
    let servers = file["servers"].as_array().unwrap();
    servers.iter().map(|s| s["metrics"].as_str().expect("every server has metrics").to_owned()).collect()
}

/// Calls that [`work`] makes of each procedure.
const TIMES: usize = 23;

/// Makes [`TIMES`] files, looks at them, writes them, looks up as many that are not there, and removes them all.
fn work(port: u16) {
    wire::run(async {
        let at = ([127, 0, 0, 1], port).into();
        let root = mount(at, "/").await.unwrap();
        let client = Client::connect(at).await.unwrap().with_cred(Cred::ROOT);
        for n in 0..TIMES {
            let name = format!("watched-{n}");
            let how = CreateHow::Guarded(Sattr3 { mode: Some(0o644), ..Sattr3::default() });
            must(Proc3::Create, client.create(&root, name.as_bytes(), how).await.unwrap()).unwrap();
            let found = must(Proc3::Lookup, client.lookup(&root, name.as_bytes()).await.unwrap()).unwrap();
            let none = client.lookup(&root, format!("none-{n}").as_bytes()).await.unwrap();
            assert!(matches!(none, Res3::Err(NfsStat3::NOENT, _)), "{none:?}");
            let written = client.write(&found.object, 0, &[7; 4096], StableHow::Unstable).await.unwrap();
            must(Proc3::Write, written).unwrap();
            must(Proc3::Getattr, client.getattr(&found.object).await.unwrap()).unwrap();
            must(Proc3::Commit, client.commit(&found.object, 0, 0).await.unwrap()).unwrap();
            must(Proc3::Remove, client.remove(&root, name.as_bytes()).await.unwrap()).unwrap();
        }
    });
}

fn counted(layout: Layout, name: &str) {
    let (ensemble, _) = start(name, layout, &[]);
    let at = metrics(&ensemble);
    let before = Scrape::of(&at);
    work(ensemble.port());
    let after = Scrape::of(&at);
    let grown = |name: &str, labels: &[(&str, &str)]| after.sum(name, labels) - before.sum(name, labels);
    let times = TIMES as f64;
    for (procedure, n) in [
        ("CREATE", times),
        ("LOOKUP", 2.0 * times),
        ("WRITE", times),
        ("GETATTR", times),
        ("COMMIT", times),
        ("REMOVE", times),
        ("READ", 0.0),
        ("SYMLINK", 0.0),
    ] {
        let own = [("procedure", procedure)];
        assert_eq!(grown("slice_proxy_requests_total", &own), n, "{procedure}");
        assert_eq!(grown("slice_proxy_request_duration_seconds_count", &own), n, "{procedure}");
    }
    let missed = [("procedure", "LOOKUP"), ("status", "NOENT")];
    assert_eq!(grown("slice_proxy_errors_total", &missed), times);
    assert_eq!(grown("slice_proxy_errors_total", &[]), times, "no other error");
    // Names go to directory servers, one call each; both ends count the same.
    for procedure in ["CREATE", "LOOKUP", "REMOVE"] {
        let asked =
            grown("slice_proxy_calls_total", &[("target_role", "dirserver"), ("procedure", procedure)]);
        let served = grown("slice_server_requests_total", &[("role", "dirserver"), ("procedure", procedure)]);
        assert_eq!(asked, grown("slice_proxy_requests_total", &[("procedure", procedure)]), "{procedure}");
        assert_eq!(asked, served, "{procedure}");
    }
    for role in ["smallfile", "blockstore"] {
        let asked = grown("slice_proxy_calls_total", &[("target_role", role), ("procedure", "WRITE")]);
        assert_eq!(asked, if role == "smallfile" { times } else { 0.0 }, "{role}");
        assert_eq!(
            asked,
            grown("slice_server_requests_total", &[("role", role), ("procedure", "WRITE")]),
            "{role}"
        );
    }
    assert!(grown("slice_store_commits_total", &[("role", "dirserver")]) > 0.0);
    assert!(grown("slice_store_commits_total", &[("role", "smallfile"), ("log", "data")]) > 0.0);
    // One request in 32 is measured.
    for phase in ["decode", "route", "receive", "send"] {
        assert!(grown("slice_proxy_phase_cpu_seconds_total", &[("phase", phase)]) > 0.0, "{phase}");
    }
    assert_eq!(after.sum("slice_sites", &[("role", "dirserver")]), 256.0);
    assert_eq!(after.sum("slice_members_heard", &[]), 9.0);
    assert_eq!(after.sum("slice_serving", &[]), 1.0);
    lint(&at);
    shipped(&after);
    assert_eq!(get(&at[0], "/nothing").0, 404);
}

/// What Prometheus's own tool thinks of the text, where it is installed.
fn lint(addresses: &[String]) {
    for at in addresses.iter().collect::<BTreeSet<_>>() {
        let mut command = Command::new("promtool");
        command
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let Ok(mut tool) = command.spawn() else { return };
        tool.stdin.take().unwrap().write_all(get(at, "/metrics").1.as_bytes()).unwrap();
        let said = tool.wait_with_output().unwrap();
        let words =
            String::from_utf8_lossy(&said.stderr).into_owned() + &String::from_utf8_lossy(&said.stdout);
        assert!(said.status.success() && words.trim().is_empty(), "{at}: {words}");
    }
}

/// Every metric that deploy/ names exists, or is one that needs an event which this test does not make.
fn shipped(scrape: &Scrape) {
    let names = scrape.names();
    let only_after_events = ["slice_server_errors_total", "slice_proxy_call_errors_total"];
    for file in ["deploy/grafana/slice.json", "deploy/prometheus/slice.rules.yml"] {
        let text = fs::read_to_string(paths::workspace().join(file)).unwrap();
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        let used: BTreeSet<&str> = text.split(|c| !word(c)).filter(|w| w.starts_with("slice_")).collect();
        assert!(used.len() > 5, "{file}: {used:?}");
        for name in used {
            assert!(
                names.contains(name) || only_after_events.contains(&name),
                "{file} names {name}, which is none"
            );
        }
    }
    let dashboard = fs::read_to_string(paths::workspace().join("deploy/grafana/slice.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|p| p["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "each panel has an id of its own");
}

#[test]
fn metrics_count_what_was_sent_one_process() {
    counted(Layout::OneProcess, "watch-one");
}

#[test]
fn metrics_count_what_was_sent_separate() {
    counted(Layout::Separate, "watch-separate");
}

#[test]
fn a_request_is_found_in_the_logs_of_both_ends() {
    let data = tempfile::tempdir().unwrap();
    let port = free_port().unwrap();
    let log = paths::target().join("ensemble/watch-logs.log");
    fs::create_dir_all(log.parent().unwrap()).unwrap();
    let binary = binary().unwrap();
    let arguments = [
        "RUST_LOG=warn,slice::request=debug",
        "SLICE_LOG_FORMAT=json",
        &binary.to_string_lossy(),
        "up",
        "--data",
        &data.path().to_string_lossy(),
        "--listen",
        &format!("127.0.0.1:{port}"),
        "--no-root-squash",
        "--separate",
    ]
    .map(str::to_owned);
    let mut up = Process::start(Path::new("/usr/bin/env"), &arguments, &log).unwrap();
    up.wait_line("its mount command", LIMIT, |line| line.contains("mount ")).unwrap();
    work(port);
    up.stop(LIMIT).unwrap();
    let lines = |name: &str| -> Vec<Value> {
        let text = fs::read_to_string(data.path().join("log").join(name)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).expect("every line is an object")).collect()
    };
    let key = |v: &Value| {
        let field = |name: &str| v[name].as_str().unwrap_or_default().to_owned();
        (field("client"), field("xid"), field("procedure"))
    };
    let received: BTreeMap<_, _> =
        lines("proxy.log").iter().filter(|v| v["message"] == "received").map(|v| (key(v), ())).collect();
    let served: Vec<Value> =
        lines("dirserver-0.log").into_iter().filter(|v| v["message"] == "served").collect();
    let lookups: Vec<_> = served.iter().filter(|v| v["procedure"] == "LOOKUP").collect();
    assert_eq!(lookups.len(), 2 * TIMES);
    assert_eq!(lookups.iter().filter(|v| v["status"] == "NOENT").count(), TIMES);
    for line in &lookups {
        assert!(received.contains_key(&key(line)), "the µproxy knows nothing of {line}");
        assert_eq!((line["client"].as_str(), line["role"].as_str()), (Some("127.0.0.1"), Some("dirserver")));
    }
}

/// Asks until `wanted` gives something.
fn until<T>(what: &str, mut wanted: impl FnMut() -> Option<T>) -> T {
    let from = Instant::now();
    loop {
        if let Some(got) = wanted() {
            return got;
        }
        assert!(from.elapsed() < LIMIT, "{what} does not come");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// A line of the manual, in `folder`, with `slice` on its PATH, and with ports that nobody else has in place of the usual ones.
fn shell(line: &str, folder: &Path, page: &str, log: &Path) -> Process {
    let listen = format!("slice up --listen 127.0.0.1:{}", free_port().unwrap());
    let line = line.replace("127.0.0.1:9049", page).replace("slice up", &listen);
    let line = format!("cd {} && PATH={}:$PATH && exec {line}", folder.display(), folder.display());
    Process::start(Path::new("/bin/sh"), &["-ec".to_owned(), line], log).unwrap()
}

/// Everything that is written under "Watch" is typed.
#[test]
fn the_manuals_commands_show_the_ensemble() {
    let commands = manual::commands("watch").remove("watch").unwrap();
    let (starts, looks): (Vec<_>, Vec<_>) = commands.iter().partition(|line| line.starts_with("slice up"));
    assert!(starts.len() == 2 && looks.len() == 3, "{commands:?}");
    let log = paths::target().join("ensemble/watch-manual.log");
    fs::create_dir_all(log.parent().unwrap()).unwrap();
    for start in starts {
        let folder = tempfile::tempdir().unwrap();
        symlink(binary().unwrap(), folder.path().join("slice")).unwrap();
        let page = format!("127.0.0.1:{}", free_port().unwrap());
        let mut up = shell(start, folder.path(), &page, &log);
        up.wait_line("the mount command", LIMIT, |line| line.contains("mount -t nfs")).unwrap();
        assert_eq!(get(&page, "/").0, 200);
        assert_eq!(get(&page, "/metrics").0, 200);
        for look in &looks {
            let mut shown = shell(look, folder.path(), &page, &log);
            // The first is a table, the second one again and again, the third is for programs.
            let times = if look.contains("--watch") { 2 } else { 1 };
            for _ in 0..times {
                let server = |line: &str| line.contains("dirserver");
                shown.wait_line("a directory server", LIMIT, server).unwrap();
            }
            if times == 1 {
                assert!(clean(shown.wait(LIMIT).unwrap()), "{look}");
            }
        }
        assert!(clean(up.stop(LIMIT).unwrap()));
    }
}

#[test]
#[ignore = "watch: needs Debian's prometheus; cargo xtask test watch"]
fn prometheus_scrapes_it() {
    let (ensemble, _) = start("watch-prometheus", Layout::Separate, &[]);
    let folder = tempfile::tempdir().unwrap();
    for file in ["prometheus.yml", "slice.rules.yml"] {
        fs::copy(paths::workspace().join("deploy/prometheus").join(file), folder.path().join(file)).unwrap();
    }
    let targets: Vec<String> = metrics(&ensemble).iter().map(|at| format!("    - {at}\n")).collect();
    fs::write(folder.path().join("targets.yml"), format!("- targets:\n{}", targets.concat())).unwrap();
    let config = folder.path().join("prometheus.yml");
    let text = fs::read_to_string(&config).unwrap().replace("_interval: 10s", "_interval: 1s");
    fs::write(&config, text).unwrap();
    let at = format!("127.0.0.1:{}", free_port().unwrap());
    let arguments = [
        format!("--config.file={}", config.display()),
        format!("--storage.tsdb.path={}", folder.path().join("data").display()),
        format!("--web.listen-address={at}"),
    ];
    let log = paths::target().join("ensemble/watch-prometheus-itself.log");
    let program = ["/usr/bin/prometheus", "/usr/local/bin/prometheus"].map(Path::new);
    let program = program.into_iter().find(|p| p.exists()).expect("prometheus is installed");
    let mut prometheus = Process::start(program, &arguments, &log).unwrap();
    let port = at.rsplit(':').next().unwrap().parse().unwrap();
    prometheus.wait_port(port, LIMIT).unwrap();
    let query = |q: &str| -> Option<f64> {
        let (status, body) = get_chunked(&at, &format!("/api/v1/query?query={q}"));
        let answer: Value = serde_json::from_str(&body).ok().filter(|_| status == 200)?;
        answer["data"]["result"][0]["value"][1].as_str()?.parse().ok()
    };
    let all = targets.len() as f64;
    until("every target, and it is up", || query("sum(up)").filter(|up| *up == all));
    let name = "sum(slice_proxy_requests_total%7Bprocedure=%22LOOKUP%22%7D)%20or%20vector(0)";
    let before = query(name).unwrap();
    work(ensemble.port());
    until("the operations", || query(name).filter(|n| *n == before + 2.0 * TIMES as f64));
    // Every rule can be evaluated, and none of them fires on an ensemble that is well.
    let rules = until("rules that were evaluated", || {
        let (_, body) = get_chunked(&at, "/api/v1/rules");
        let rules: Value = serde_json::from_str(&body).ok()?;
        let rules = rules["data"]["groups"][0]["rules"].as_array()?.clone();
        rules.iter().all(|r| r["health"] != "unknown").then_some(rules)
    });
    assert!(rules.len() >= 13, "{rules:?}");
    for rule in &rules {
        assert_eq!(rule["health"], "ok", "{rule}");
        assert_ne!(rule["state"], "firing", "{rule}");
    }
}

/// GET from a server that answers in chunks: by curl, which every machine with Prometheus has.
fn get_chunked(at: &str, path: &str) -> (u16, String) {
    let out =
        Command::new("curl").args(["--silent", "--globoff", &format!("http://{at}{path}")]).output().unwrap();
    (if out.status.success() { 200 } else { 0 }, String::from_utf8_lossy(&out.stdout).into_owned())
}

#[test]
#[ignore = "watch: needs Debian's chromium; cargo xtask test watch"]
fn the_page_shows_the_ensemble() {
    let (ensemble, page) = start("watch-page", Layout::OneProcess, &[]);
    let port = ensemble.port();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let load = std::thread::spawn(move || {
        while stopped.try_recv().is_err() {
            work(port);
        }
    });
    let data = until("rates, and no alarm", || {
        let data: Value = serde_json::from_str(&get(&page, "/status.json").1).unwrap();
        let servers = data["servers"].as_array().unwrap().clone();
        let busy = servers.iter().find(|s| s["role"] == "proxy")?["ops_s"].as_f64()? > 1.0;
        let history = servers.iter().find(|s| s["role"] == "dirserver")?["history"].as_array()?.len() > 20;
        // Right after the start some have not told yet that they have the table.
        let calm = data["alarms"].as_array()?.is_empty();
        (busy && history && calm).then_some(data)
    });
    let folder = paths::target().join("watch");
    fs::create_dir_all(&folder).unwrap();
    let picture = folder.join("page.png");
    let profile = tempfile::tempdir().unwrap();
    let browse = |more: &[String]| {
        let mut chromium = Command::new("chromium");
        chromium.args([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--window-size=1280,1500",
        ]);
        chromium
            .arg("--virtual-time-budget=4000")
            .arg(format!("--user-data-dir={}", profile.path().display()));
        chromium.args(more).arg(format!("http://{page}/"));
        let out = chromium.output().expect("chromium is installed");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    let dom = browse(&["--dump-dom".to_owned()]);
    browse(&[format!("--screenshot={}", picture.display())]);
    stop.send(()).unwrap();
    load.join().unwrap();
    assert!(fs::metadata(&picture).unwrap().len() > 10_000, "the picture is in {}", picture.display());
    assert!(dom.contains("data-state=\"live\""), "the page did not get its data: {dom}");
    for (role, n) in [
        ("proxy", 1),
        ("dirserver", 3),
        ("smallfile", 2),
        ("blockstore", 3),
        ("coordinator", 1),
        ("client", 1),
    ] {
        assert_eq!(dom.matches(&format!("data-node=\"{role}\"")).count(), n, "boxes of {role}");
    }
    for server in data["servers"].as_array().unwrap() {
        assert!(dom.contains(&format!("data-server=\"{}\"", server["id"].as_str().unwrap())), "{server}");
    }
    for text in ["serving", "No alarms.", "127.0.0.1", "hash", "operations a second"] {
        assert!(dom.contains(text), "{text}");
    }
    assert!(!dom.contains("data-alarm="));
    let ops = dom.split("data-node=\"proxy\"").nth(1).and_then(|d| d.split("data-ops=\"").nth(1));
    let ops: f64 = ops.and_then(|d| d.split('"').next()).unwrap().parse().unwrap();
    assert!(ops > 1.0, "the µproxy is at work");
}
