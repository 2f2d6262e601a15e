//! fsx: random reads, writes, truncates, maps and copies on one file, every byte compared with what fsx remembers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // A test may stop at the first surprise.

use std::time::Duration;

use slice_tests::ensemble::{Layout, Policy};
use slice_tests::guest::Spec;
use slice_tests::stock::{Length, Server, run_name};
use slice_tests::{Error, paths, stock_suite};

/// The 64 KiB threshold is in the middle of most operations.
const SMALL: &str = "flen = 196608\n[opsize]\nmin = 1\nmax = 65536\n";

/// Five stripe units (1 MiB each, the first short), not a multiple of anything.
const LARGE: &str = "flen = 4500001\n[opsize]\nmin = 1\nmax = 393216\n";

/// Closing, syncing and dropping caches make the client ask the server rather than its own memory.
const WEIGHTS: &str = "[weights]\nread = 20\nwrite = 20\nmapread = 5\nmapwrite = 5\ntruncate = 8\nclose_open = 4\ninvalidate = 1\n\
    fsync = 2\nfdatasync = 2\nposix_fadvise = 6\nsendfile = 2\ncopy_file_range = 2\n";

/// 20,000 operations on a large file take two minutes in an emulated guest.
const LIMIT: Duration = Duration::from_secs(1800);

stock_suite!(run);

fn run(policy: Policy, layout: Layout) -> Result<(), Error> {
    let length = Length::get();
    let (small, large) = (length.pick(1000, 2000, 20_000), length.pick(500, 1000, 20_000));
    let seeds: &[u64] = length.pick(&[1], &[1, 2, 3], &[1, 2, 3]);

    let server = Server::start("fsx", policy, layout)?;
    let mut spec = Spec::new(&run_name("fsx", policy, layout)).mount(server.mount()).limit(LIMIT);
    spec = spec.program(&paths::tool("fsx"))?;
    spec.image().text("/etc/small.toml", 0o644, format!("{SMALL}{WEIGHTS}"));
    spec.image().text("/etc/large.toml", 0o644, format!("{LARGE}{WEIGHTS}"));
    let mut script = String::new();
    for seed in seeds {
        for (size, operations) in [("small", small), ("large", large)] {
            println!("{policy}, {layout}: fsx -f {size}.toml -N {operations} -S {seed}");
            script += &format!(
                "step {size}-{seed} fsx -q -f /etc/{size}.toml -N {operations} -S {seed} -P /tmp /mnt/{size}-{seed}\n"
            );
        }
    }
    spec.run(&script)?;
    server.stop()
}
