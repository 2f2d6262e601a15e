//! Where a workload runs: connections to the target, and a directory of its own there.

use crate::client::{self, Client, Fh, must};
use crate::conn::Conn;
use crate::{Error, Stop};
use slice_proto::nfs3::{CookieVerf, CreateHow, FType3, NfsStat3, Proc3, Res3, Sattr3, StableHow};
use slice_proto::rpc_msg::Cred;
use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use tokio::task::JoinSet;

/// Calls in flight while preparing and clearing.
pub const WINDOW: usize = 64;
/// Bytes of one WRITE while preparing.
const PIECE: usize = 256 << 10;
/// Counts of READDIRPLUS while clearing.
const DIRCOUNT: u32 = 16 << 10;
const MAXCOUNT: u32 = 64 << 10;

/// Whom to load.
#[derive(Debug, Clone)]
pub struct Target {
    /// Where NFS is.
    pub nfs: SocketAddr,
    /// Where MOUNT is.
    pub mount: SocketAddr,
    /// What to mount.
    pub export: String,
    /// Whom to act for.
    pub cred: Cred,
}

/// Connections, and a directory.
#[derive(Debug)]
pub struct Site {
    clients: Vec<Client>,
    turn: Cell<usize>,
    root: Fh,
    name: String,
    /// The directory that is the workload's own.
    pub dir: Fh,
}

fn mode(mode: u32) -> Sattr3 {
    Sattr3 { mode: Some(mode), ..Sattr3::default() }
}

/// Makes a directory; takes the one that is there.
///
/// # Errors
/// Those of the calls.
pub async fn make_dir(client: &Client, dir: &Fh, name: &str) -> Result<Fh, Error> {
    let made = match client.mkdir(dir, name.as_bytes(), mode(0o777)).await? {
        Res3::Ok(made) => made.object,
        Res3::Err(NfsStat3::EXIST, _) => None,
        Res3::Err(status, _) => return Err(Error::Nfs { proc: Proc3::Mkdir, status }),
    };
    match made {
        Some(fh) => Ok(fh),
        None => Ok(must(Proc3::Lookup, client.lookup(dir, name.as_bytes()).await?)?.object),
    }
}

/// Makes a file with this content, durably.
///
/// # Errors
/// Those of the calls.
pub async fn make_file(client: &Client, dir: &Fh, name: &str, content: &[u8]) -> Result<Fh, Error> {
    let how = CreateHow::Unchecked(Sattr3 { size: Some(0), ..mode(0o644) });
    let made = must(Proc3::Create, client.create(dir, name.as_bytes(), how).await?)?;
    let fh = match made.object {
        Some(fh) => fh,
        None => must(Proc3::Lookup, client.lookup(dir, name.as_bytes()).await?)?.object,
    };
    let mut at = 0;
    while let Some(rest) = content.get(at..).filter(|rest| !rest.is_empty()) {
        let piece = rest.get(..PIECE).unwrap_or(rest);
        let done = must(Proc3::Write, client.write(&fh, at as u64, piece, StableHow::Unstable).await?)?;
        if done.count == 0 {
            return Err(Error::Protocol("WRITE wrote nothing"));
        }
        at += done.count as usize;
    }
    if !content.is_empty() {
        must(Proc3::Commit, client.commit(&fh, 0, 0).await?)?;
    }
    Ok(fh)
}

/// Runs steps, [`WINDOW`] at a time, until all are done, one failed, or a stop was asked for (then what it says is false).
///
/// # Errors
/// The first step's that failed.
pub async fn pipelined<F>(steps: impl Iterator<Item = F>, stop: &Stop) -> Result<bool, Error>
where
    F: Future<Output = Result<(), Error>> + 'static,
{
    let mut running = JoinSet::new();
    let mut whole = true;
    for step in steps {
        if stop.asked() {
            whole = false;
            break;
        }
        if running.len() >= WINDOW {
            ended(running.join_next().await)?;
        }
        running.spawn_local(step);
    }
    while !running.is_empty() {
        ended(running.join_next().await)?;
    }
    Ok(whole)
}

fn ended(step: Option<Result<Result<(), Error>, tokio::task::JoinError>>) -> Result<(), Error> {
    step.map_or(Ok(()), |joined| joined.map_err(|_| Error::Protocol("a task panicked"))?)
}

impl Site {
    /// Connects, and makes the directory `name` in the export.
    ///
    /// # Errors
    /// Those of the transport and of the calls.
    pub async fn open(target: &Target, conns: usize, name: String) -> Result<Rc<Self>, Error> {
        let root = client::mount(target.mount, &target.export).await?;
        let mut clients = Vec::new();
        for _ in 0..conns.max(1) {
            clients.push(Client::new(Conn::connect(target.nfs).await?, target.cred));
        }
        let first = clients.first().ok_or(Error::Protocol("no connection"))?;
        let dir = make_dir(first, &root, &name).await?;
        Ok(Rc::new(Self { turn: Cell::new(0), root, name, dir, clients }))
    }

    /// The connections in turn.
    ///
    /// # Errors
    /// None: there is at least one.
    pub fn client(&self) -> Result<&Client, Error> {
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        self.nth(turn)
    }

    /// One connection of those there are.
    ///
    /// # Errors
    /// None: there is at least one.
    pub fn nth(&self, n: usize) -> Result<&Client, Error> {
        self.clients.get(n % self.clients.len().max(1)).ok_or(Error::Protocol("no connection"))
    }

    /// Removes the directory and all that is in it, unless a stop is asked for; says whether it is gone.
    ///
    /// # Errors
    /// Those of the transport and of the calls.
    pub async fn clear(self: &Rc<Self>, stop: &Stop) -> Result<bool, Error> {
        // Depth first: a directory is emptied when its subdirectories are.
        let mut stack = vec![(self.root, self.name.clone(), self.dir, false)];
        while let Some((parent, name, dir, empty)) = stack.pop() {
            if empty {
                must(Proc3::Rmdir, self.client()?.rmdir(&parent, name.as_bytes()).await?)?;
                continue;
            }
            stack.push((parent, name, dir, true));
            let (files, dirs) = self.list(dir).await?;
            let steps = files.into_iter().map(|name| {
                let site = Rc::clone(self);
                async move { must(Proc3::Remove, site.client()?.remove(&dir, &name).await?).map(|_| ()) }
            });
            if !pipelined(steps, stop).await? {
                return Ok(false);
            }
            stack.extend(dirs.into_iter().map(|(name, fh)| (dir, name, fh, false)));
        }
        Ok(true)
    }

    /// What is in a directory: names of files, and directories.
    async fn list(&self, dir: Fh) -> Result<(Vec<Vec<u8>>, Vec<(String, Fh)>), Error> {
        let (mut files, mut dirs) = (Vec::new(), Vec::new());
        let (mut cookie, mut verf) = (0, CookieVerf::default());
        loop {
            let client = self.client()?;
            let page = client.readdirplus(&dir, cookie, verf, DIRCOUNT, MAXCOUNT).await?;
            let page = must(Proc3::Readdirplus, page)?;
            verf = page.verf;
            match page.entries.last() {
                Some(last) => cookie = last.cookie,
                None if page.eof => return Ok((files, dirs)),
                None => return Err(Error::Protocol("READDIRPLUS returned no entry and no end")),
            }
            for entry in page.entries.into_iter().filter(|e| e.name != b"." && e.name != b"..") {
                let (fh, attr) = match (entry.handle, entry.attr) {
                    (Some(fh), Some(attr)) => (fh, attr),
                    _ => {
                        let found = must(Proc3::Lookup, client.lookup(&dir, &entry.name).await?)?;
                        let attr = must(Proc3::Getattr, client.getattr(&found.object).await?)?;
                        (found.object, attr)
                    }
                };
                if attr.ftype == FType3::Dir {
                    dirs.push((String::from_utf8_lossy(&entry.name).into_owned(), fh));
                } else {
                    files.push(entry.name);
                }
            }
            if page.eof {
                return Ok((files, dirs));
            }
        }
    }
}
