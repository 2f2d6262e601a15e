//! Writes what the targets begin with into a directory, a folder a target: `seeds DIR`. For libFuzzer, which wants files.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: seeds DIR");
        return ExitCode::from(2);
    };
    for (name, _) in slice_fuzz::TARGETS {
        let folder = folder.join(name);
        let written = std::fs::create_dir_all(&folder).and_then(|()| {
            let seeds = slice_fuzz::seeds::of(name);
            seeds
                .iter()
                .enumerate()
                .try_for_each(|(n, seed)| std::fs::write(folder.join(format!("seed-{n}")), seed))
        });
        if let Err(error) = written {
            eprintln!("{}: {error}", folder.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
