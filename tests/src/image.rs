//! What a guest finds in its root file system: files of this machine, with the libraries they need.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cpio::{Archive, Kind};
use crate::error::{Doing, Error};

/// Where one member's bytes come from.
#[derive(Clone, Debug)]
enum Content {
    Host(PathBuf),
    Bytes(Vec<u8>),
}

/// The largest host file that we carry into a guest: all of it lies in the guest's memory.
const FILE_BYTES_MAX: u64 = 2 << 30;

/// A tree of files to be. Paths in the guest are absolute; their parent directories come by themselves.
#[derive(Clone, Debug, Default)]
pub struct Image {
    members: BTreeMap<String, (Kind, Content)>,
}

impl Image {
    /// An image without files.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many files, directories and links there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// True if nothing was added yet.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// A directory, mode 0755.
    pub fn directory(&mut self, guest: &str) {
        let guest = merged(guest);
        self.parents(&guest);
        self.members.entry(guest).or_insert((Kind::Directory(0o755), Content::Bytes(Vec::new())));
    }

    /// A symbolic link at `guest` that says `target`.
    pub fn link(&mut self, guest: &str, target: &str) {
        let guest = merged(guest);
        self.parents(&guest);
        self.members.insert(guest, (Kind::Link, Content::Bytes(target.as_bytes().to_vec())));
    }

    /// A file with this content; executable if `mode` says so.
    pub fn text(&mut self, guest: &str, mode: u32, content: impl Into<Vec<u8>>) {
        let guest = merged(guest);
        self.parents(&guest);
        self.members.insert(guest, (Kind::File(mode), Content::Bytes(content.into())));
    }

    /// A file of this machine, symbolic links followed.
    pub fn file(&mut self, host: &Path, guest: &str) -> Result<(), Error> {
        let about = fs::metadata(host).doing(|| format!("reading {}", host.display()))?;
        if about.len() > FILE_BYTES_MAX {
            return Err(Error::TooLarge(host.to_owned()));
        }
        let guest = merged(guest);
        self.parents(&guest);
        let kind = Kind::File(about.permissions().mode() & 0o7777);
        self.members.insert(guest, (kind, Content::Host(host.to_owned())));
        Ok(())
    }

    /// A program of this machine at `guest`, and the shared libraries that `ldd` names, where the program looks for them.
    pub fn program(&mut self, host: &Path, guest: &str) -> Result<(), Error> {
        self.file(host, guest)?;
        // ldd fails on a static program: then there is nothing to add.
        let listing = Command::new("ldd").arg(host).output().doing(|| format!("ldd {}", host.display()))?;
        for library in libraries(&String::from_utf8_lossy(&listing.stdout)) {
            self.file(Path::new(library), library)?;
        }
        Ok(())
    }

    /// The files of an installed Debian package, but for its documentation; programs with their libraries.
    pub fn package(&mut self, package: &'static str) -> Result<(), Error> {
        let listing =
            Command::new("dpkg").args(["-L", package]).output().doing(|| format!("dpkg -L {package}"))?;
        if !listing.status.success() {
            return Err(Error::Missing { what: format!("the package {package}"), package });
        }
        for path in String::from_utf8_lossy(&listing.stdout).lines() {
            if !path.starts_with('/') || SHARED_DOCUMENTATION.iter().any(|d| path.starts_with(d)) {
                continue;
            }
            let host = Path::new(path);
            let Ok(about) = fs::symlink_metadata(host) else { continue };
            if about.is_symlink() {
                let target = fs::read_link(host).doing(|| format!("reading {path}"))?;
                self.link(path, &target.to_string_lossy());
            } else if about.is_file() && about.permissions().mode() & 0o100 != 0 {
                self.program(host, path)?;
            } else if about.is_file() {
                self.file(host, path)?;
            }
        }
        Ok(())
    }

    /// A whole directory of this machine, symbolic links kept as they are.
    pub fn tree(&mut self, host: &Path, guest: &str) -> Result<(), Error> {
        self.directory(guest);
        for entry in fs::read_dir(host).doing(|| format!("listing {}", host.display()))? {
            let entry = entry.doing(|| format!("listing {}", host.display()))?;
            let inside = format!("{guest}/{}", entry.file_name().to_string_lossy());
            let kind = entry.file_type().doing(|| format!("reading {}", entry.path().display()))?;
            if kind.is_symlink() {
                let target =
                    fs::read_link(entry.path()).doing(|| format!("reading {}", entry.path().display()))?;
                self.link(&inside, &target.to_string_lossy());
            } else if kind.is_dir() {
                self.tree(&entry.path(), &inside)?;
            } else if kind.is_file() {
                self.file(&entry.path(), &inside)?;
            }
        }
        Ok(())
    }

    /// Writes the image as one newc archive.
    pub fn write(&self, out: impl Write) -> Result<(), Error> {
        let mut archive = Archive::new(BufWriter::new(out));
        for (name, (kind, content)) in &self.members {
            let written = match content {
                Content::Bytes(bytes) => archive.member(name, *kind, bytes),
                Content::Host(path) => {
                    let bytes = fs::read(path).doing(|| format!("reading {}", path.display()))?;
                    archive.member(name, *kind, &bytes)
                }
            };
            written.doing(|| format!("packing {name}"))?;
        }
        let flushed = archive.finish().and_then(|mut out| out.flush());
        flushed.doing(|| "packing the trailer".into())
    }

    /// Adds the directories above `guest` that are not there yet.
    fn parents(&mut self, guest: &str) {
        for (slash, _) in guest.match_indices('/') {
            let Some(parent) = guest.get(..slash) else { continue };
            let directory = (Kind::Directory(0o755), Content::Bytes(Vec::new()));
            self.members.entry(parent.to_owned()).or_insert(directory);
        }
    }
}

/// Not needed to run anything, and most of what many packages consist of.
const SHARED_DOCUMENTATION: [&str; 6] = [
    "/usr/share/doc",
    "/usr/share/man",
    "/usr/share/info",
    "/usr/share/locale",
    "/usr/share/lintian",
    "/usr/share/bug",
];

/// The name of a member: no slash in front, and `/bin`, `/sbin`, `/lib*` moved into `/usr` as on a merged Debian
/// system. The base image links the old names, so each file has one place whatever name a package uses.
fn merged(guest: &str) -> String {
    let guest = guest.trim_matches('/');
    let first = guest.split('/').next().unwrap_or_default();
    if guest != first && matches!(first, "bin" | "sbin" | "lib" | "lib32" | "lib64" | "libx32") {
        return format!("usr/{guest}");
    }
    guest.to_owned()
}

/// The absolute paths in what `ldd` prints.
fn libraries(listing: &str) -> impl Iterator<Item = &str> {
    listing.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
}

/// `name` in the directories where Debian keeps programs, or `Missing` with the package that brings it.
pub fn find_program(name: &str, package: &'static str) -> Result<PathBuf, Error> {
    let places = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    let found = places.iter().map(|place| Path::new(place).join(name)).find(|path| path.is_file());
    found.ok_or_else(|| Error::Missing { what: name.to_owned(), package })
}

/// Writes `content` to `path` in one step: whoever opens it sees all of it or the file that was there before.
pub fn write_whole(path: &Path, content: &[u8]) -> Result<(), Error> {
    let say = || format!("writing {}", path.display());
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).doing(say)?;
    let mut file = tempfile::NamedTempFile::new_in(folder).doing(say)?;
    file.write_all(content).doing(say)?;
    file.persist(path).map_err(|e| io::Error::from(e.error.kind())).doing(say)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_has_one_place_on_a_merged_system() {
        assert_eq!(merged("/lib/x86_64-linux-gnu/libc.so.6"), "usr/lib/x86_64-linux-gnu/libc.so.6");
        assert_eq!(merged("/usr/bin/make"), "usr/bin/make");
        assert_eq!(merged("/bin"), "bin");
        assert_eq!(merged("/library/x"), "library/x");
    }

    #[test]
    fn parents_come_before_their_children() {
        let mut image = Image::new();
        image.text("/a/b/c", 0o644, "x");
        image.directory("/a/b");
        let names: Vec<_> = image.members.keys().map(String::as_str).collect();
        assert_eq!(names, ["a", "a/b", "a/b/c"]);
    }

    #[test]
    fn libraries_are_the_paths_that_ldd_names() {
        let listing = "\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/libc.so.6 (0x2)\n\t/lib64/ld.so (0x3)\n\tnot a dynamic executable\n";
        assert_eq!(libraries(listing).collect::<Vec<_>>(), ["/lib/libc.so.6", "/lib64/ld.so"]);
    }

    #[test]
    fn a_program_brings_its_libraries() {
        let mut image = Image::new();
        image.program(Path::new("/usr/bin/env"), "/usr/local/bin/env").unwrap();
        assert!(image.members.keys().any(|name| name.contains("libc.so")), "{:?}", image.members.keys());
        let mut packed = Vec::new();
        image.write(&mut packed).unwrap();
        assert!(packed.len() > 100_000);
    }
}
