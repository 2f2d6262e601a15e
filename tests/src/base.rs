//! What every guest has: a kernel, its modules, busybox, mount.nfs, users. Packed once and kept by content.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Doing, Error};
use crate::image::{Image, find_program, write_whole};
use crate::paths;

/// The kernel that guests run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Its image, `/boot/vmlinuz-VERSION`.
    pub image: PathBuf,
    /// Its version, which names its modules' directory.
    pub version: String,
}

const KERNEL_PACKAGE: &str = "linux-image-cloud-amd64";

/// The newest of Debian's cloud kernels on this machine: small, with NFSv3 and virtio as modules.
pub fn kernel() -> Result<Kernel, Error> {
    let boot = Path::new("/boot");
    let mut found = Vec::new();
    for entry in fs::read_dir(boot).doing(|| "listing /boot".into())? {
        let entry = entry.doing(|| "listing /boot".into())?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(version) = name.strip_prefix("vmlinuz-").filter(|v| v.ends_with("-cloud-amd64")) {
            found.push(Kernel { image: entry.path(), version: version.to_owned() });
        }
    }
    let newest = found.into_iter().max_by_key(|kernel| version_key(&kernel.version));
    newest.ok_or_else(|| Error::Missing { what: "a kernel for guests".into(), package: KERNEL_PACKAGE })
}

/// Orders `6.1.0-9` before `6.1.0-56`.
fn version_key(version: &str) -> Vec<u64> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

/// The packed base for this kernel. It is made anew when any of its files has changed.
pub fn cached(kernel: &Kernel) -> Result<PathBuf, Error> {
    let mut packed = Vec::new();
    image(kernel)?.write(&mut packed)?;
    let path = paths::guest_folder().join(format!("base-{:016x}.cpio", xxh3_64(&packed)));
    if !path.is_file() {
        write_whole(&path, &packed)?;
    }
    Ok(path)
}

/// What loads before the mount: the buses, the network, the port to the test, the NFS client.
const MODULES: [&str; 5] = ["virtio_pci", "virtio_net", "virtio_rng", "virtio_console", "nfsv3"];

/// root, pjdfstest's two users (`nobody` and `tests`), and two for scripts.
const PASSWD: &str = "root:x:0:0::/root:/bin/sh\nu1:x:1001:1001::/:/bin/sh\nu2:x:1002:1002::/:/bin/sh\n\
    tests:x:1003:1003::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n";
const GROUP: &str = "root:x:0:\nu1:x:1001:\nu2:x:1002:\ntests:x:1003:\nnobody:x:65534:\n";

/// What getprotobyname and the RPC library's netconfig need so that mount.nfs may speak TCP and UDP.
const NETCONFIG: &str = "udp tpi_clts v inet udp - -\ntcp tpi_cots_ord v inet tcp - -\n";

fn image(kernel: &Kernel) -> Result<Image, Error> {
    let mut image = Image::new();
    for (old, new) in
        [("/bin", "usr/bin"), ("/sbin", "usr/sbin"), ("/lib", "usr/lib"), ("/lib64", "usr/lib64")]
    {
        image.link(old, new);
    }
    for directory in
        ["/proc", "/sys", "/dev", "/tmp", "/run", "/mnt", "/root", "/var/lib/nfs", "/usr/sbin", "/guest"]
    {
        image.directory(directory);
    }
    image.link("/var/run", "../run");
    image.program(&find_program("busybox", "busybox-static")?, "/usr/bin/busybox")?;
    image.link("/usr/bin/sh", "busybox");
    image.program(&find_program("mount.nfs", "nfs-common")?, "/usr/sbin/mount.nfs")?;
    image.link("/usr/sbin/umount.nfs", "mount.nfs");
    image.text("/etc/passwd", 0o644, PASSWD);
    image.text("/etc/group", 0o644, GROUP);
    image.text("/etc/protocols", 0o644, "tcp 6 TCP\nudp 17 UDP\n");
    image.text("/etc/netconfig", 0o644, NETCONFIG);
    image.text("/etc/hosts", 0o644, "127.0.0.1 localhost\n10.0.2.15 guest\n10.0.2.2 server\n");
    image.text("/etc/nsswitch.conf", 0o644, "passwd: files\ngroup: files\nhosts: files\nprotocols: files\n");
    image.text("/init", 0o755, include_str!("guest_init.sh"));
    image.text("/guest/lib.sh", 0o644, include_str!("guest_lib.sh"));

    let mut order = String::new();
    for module in modules(kernel)? {
        let (name, content) = load_module(&module)?;
        order.push_str(&name);
        order.push('\n');
        image.text(&format!("/modules/{name}"), 0o644, content);
    }
    image.text("/modules/order", 0o644, order);
    Ok(image)
}

/// The module files in the order in which they load.
fn modules(kernel: &Kernel) -> Result<Vec<PathBuf>, Error> {
    let modprobe = find_program("modprobe", "kmod")?;
    let mut order = Vec::new();
    for module in MODULES {
        let output = Command::new(&modprobe).args(["-S", &kernel.version, "--show-depends", module]).output();
        let output = output.doing(|| format!("asking modprobe for {module}"))?;
        if !output.status.success() {
            return Err(Error::Command {
                command: format!("modprobe -S {} --show-depends {module}", kernel.version),
                status: output.status.to_string(),
                stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            });
        }
        for path in shown_modules(&String::from_utf8_lossy(&output.stdout)) {
            if !order.contains(&path) {
                order.push(path);
            }
        }
    }
    Ok(order)
}

/// The paths in modprobe's lines `insmod PATH OPTIONS`; what is built in says `builtin NAME`.
fn shown_modules(listing: &str) -> Vec<PathBuf> {
    let paths = listing.lines().filter_map(|line| line.strip_prefix("insmod ")?.split_whitespace().next());
    paths.map(PathBuf::from).collect()
}

/// A module's name without a compression's ending, and its unpacked content (busybox has no zstd).
fn load_module(path: &Path) -> Result<(String, Vec<u8>), Error> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let unpack = |tool: &str, name: &str| {
        let output = Command::new(tool).arg("-dc").arg(path).output();
        let output = output.doing(|| format!("unpacking {} with {tool}", path.display()))?;
        Ok((name.to_owned(), output.stdout))
    };
    match name.rsplit_once('.') {
        Some((plain, "xz")) => unpack("xz", plain),
        Some((plain, "zst")) => unpack("zstd", plain),
        _ => Ok((name, fs::read(path).doing(|| format!("reading {}", path.display()))?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_ordered_by_number() {
        assert!(version_key("6.1.0-9-cloud-amd64") < version_key("6.1.0-56-cloud-amd64"));
        assert!(version_key("6.1.0-56-cloud-amd64") < version_key("6.12.1-1-cloud-amd64"));
    }

    #[test]
    fn modules_are_what_modprobe_would_insert() {
        let listing = "builtin unix\ninsmod /lib/modules/6/a.ko \ninsmod /lib/modules/6/b.ko.xz x=1\n";
        assert_eq!(
            shown_modules(listing),
            [Path::new("/lib/modules/6/a.ko"), Path::new("/lib/modules/6/b.ko.xz")]
        );
    }
}
