//! Names and directories whose servers are known before they are made.

use super::client::{Client, Fh};
use super::ensemble::{Ensemble, identity};
use slice_proto::handle::KeyRing;
use slice_proto::ids::{FileId, Role, ServerId};
use slice_proto::placement::new_directory_home;
use slice_proto::table::{NamePolicy, RoutingTable, Volume};

pub struct Names {
    table: RoutingTable,
    keys: KeyRing,
}

impl Names {
    pub fn new(e: &Ensemble) -> Self {
        Self { table: e.table.clone(), keys: KeyRing::new(&identity(), e.table.key_id) }
    }

    pub fn volume(&self) -> &Volume {
        &self.table.volumes[0]
    }

    pub fn hashed(&self) -> bool {
        self.volume().policy == NamePolicy::Hash
    }

    pub fn root(&self) -> Fh {
        self.volume().sealed_root(&self.keys).to_vec()
    }

    pub fn file(&self, fh: &[u8]) -> FileId {
        self.keys.open(fh).unwrap().file
    }

    /// The server that has a file's attributes.
    pub fn home(&self, file: FileId) -> ServerId {
        self.table.owner(Role::Dir, file.home()).unwrap()
    }

    /// A name in a directory under which a new directory has its home at a server; under hashing that is where the entry
    /// is, too, and the home of a new file.
    pub fn at(&self, dir: &[u8], server: ServerId, tag: &str) -> Vec<u8> {
        let dir = self.file(dir);
        let owner =
            |name: &Vec<u8>| self.table.owner(Role::Dir, new_directory_home(self.volume(), dir, name));
        let mut names = (0..).map(|i| format!("{tag}.{i}").into_bytes());
        names.find(|name| owner(name) == Some(server)).unwrap()
    }

    /// A directory in the root whose home is at a server.
    pub async fn directory(&self, client: &Client, server: ServerId, tag: &str) -> Fh {
        let root = self.root();
        let fh = client.mkdir(&root, &self.at(&root, server, tag)).await;
        assert_eq!(self.home(self.file(&fh)), server);
        fh
    }
}
