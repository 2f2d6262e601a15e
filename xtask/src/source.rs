//! The Debian source package that `stock_tree` unpacks and compiles, fetched with apt-get into `target/sources`.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::command::{run, target};
use crate::error::Error;

/// 4,300 files, 7 MB, no configure script.
const PACKAGE: &str = "git";

/// True if the package is there, fetched now if need be. No privilege is needed: lists and package lie in `target`.
pub fn ensure() -> Result<bool, Error> {
    let folder = target().join("sources");
    if is_there(&folder) {
        return Ok(true);
    }
    let apt = folder.join("apt");
    for inside in ["lists/partial", "sources.list.d"] {
        let path = apt.join(inside);
        fs::create_dir_all(&path).map_err(|source| io(&path, source))?;
    }
    copy_lists(&apt)?;
    // A third party's list without sources makes update fail; what counts is whether the package comes.
    run(apt_get(&apt, &folder).arg("update"))?;
    run(apt_get(&apt, &folder).args(["source", "--download-only", PACKAGE]))?;
    Ok(is_there(&folder))
}

fn is_there(folder: &Path) -> bool {
    let names = fs::read_dir(folder).into_iter().flatten().flatten();
    names.map(|entry| entry.file_name()).any(|name| {
        let name = name.to_string_lossy();
        name.starts_with(PACKAGE) && name.contains(".orig.tar.") && !name.ends_with(".asc")
    })
}

/// This machine's lists of sources, asking for source packages instead of binary ones.
fn copy_lists(apt: &Path) -> Result<(), Error> {
    let system = Path::new("/etc/apt");
    let listed = fs::read_dir(system.join("sources.list.d")).into_iter().flatten().flatten();
    let mut files: Vec<_> = listed.map(|entry| entry.path()).collect();
    files.push(system.join("sources.list"));
    for file in files {
        let (Ok(text), Ok(place)) = (fs::read_to_string(&file), file.strip_prefix(system)) else { continue };
        let copy = apt.join(place);
        fs::write(&copy, for_sources(&text)).map_err(|source| io(&copy, source))?;
    }
    Ok(())
}

/// One-line entries begin with `deb `; deb822 stanzas say `Types: deb`, maybe with `deb-src` already beside it.
fn for_sources(list: &str) -> String {
    let line = |line: &str| match line.strip_prefix("deb ") {
        Some(rest) => format!("deb-src {rest}\n"),
        None if line.starts_with("Types:") => "Types: deb-src\n".to_owned(),
        None if line.starts_with("deb-src ") => String::new(), // Its "deb" line becomes this one.
        None => format!("{line}\n"),
    };
    list.lines().map(line).collect()
}

fn apt_get(apt: &Path, folder: &Path) -> Command {
    let mut command = Command::new("apt-get");
    let at = |key: &str, path: &Path| format!("{key}={}", path.display());
    command.args(["-o", &at("Dir::Etc::sourcelist", &apt.join("sources.list"))]);
    command.args(["-o", &at("Dir::Etc::sourceparts", &apt.join("sources.list.d"))]);
    command.args(["-o", &at("Dir::State::lists", &apt.join("lists"))]);
    command.args(["-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache="]);
    command.args(["-o", "APT::Sandbox::User=root"]); // The sandbox's user may not write into target.
    command.current_dir(folder);
    command
}

fn io(path: &Path, source: std::io::Error) -> Error {
    Error::Io { what: format!("writing {}", path.display()), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_ask_for_sources() {
        assert_eq!(
            for_sources("# x\ndeb http://a b main\ndeb-src http://a b main\n"),
            "# x\ndeb-src http://a b main\n"
        );
        assert_eq!(for_sources("Types: deb deb-src\nURIs: http://a\n"), "Types: deb-src\nURIs: http://a\n");
    }
}
