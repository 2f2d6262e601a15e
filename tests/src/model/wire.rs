//! One client's connection, which comes back: records are sent again with their xid, as clients do.

use super::Result;
use slice_load::conn::Reply;
use slice_load::{Conn, Error};
use slice_proto::ids::Xid;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::Instant;

/// A killed server is back in seconds; a busy machine takes longer.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);
/// Pause between attempts to connect: nobody tells when a port is open.
const CONNECT_PAUSE: Duration = Duration::from_millis(20);

/// One client's connection.
#[derive(Debug)]
pub struct Wire {
    peer: SocketAddr,
    conn: Conn,
    xid: u32,
    /// Whether a connection may break: then the record is sent again on another.
    patient: bool,
    /// How often a record was sent again because its connection broke.
    pub reconnects: u64,
}

impl Wire {
    /// Connects; xids begin at `xid`, so that no two runs in one ensemble use the same.
    pub async fn connect(peer: SocketAddr, xid: u32, patient: bool) -> Result<Self> {
        Ok(Self { peer, conn: Conn::connect(peer).await?, xid, patient, reconnects: 0 })
    }

    /// An xid that was not used before.
    pub fn next_xid(&mut self) -> Xid {
        self.xid = self.xid.wrapping_add(1);
        Xid(self.xid)
    }

    /// Sends a record, `copies` times, and waits for a reply.
    pub async fn send(&mut self, record: &[u8], copies: usize) -> Result<Reply> {
        let until = Instant::now() + ANSWER_LIMIT;
        let late = || Error::Timeout(ANSWER_LIMIT.as_secs());
        loop {
            let mut all = Vec::new();
            for _ in 0..copies.max(1) {
                all.push(self.conn.start_record(record)?);
            }
            // The first reply is whose turn it is first; those behind it are ignored, but must not be forgotten before.
            let first = all.remove(0);
            let answer = tokio::time::timeout_at(until, first.reply()).await;
            match answer.map_err(|_| late())? {
                Err(Error::Io { .. } | Error::Closed) if self.patient => self.reconnect(until).await?,
                answer => return Ok(answer?),
            }
        }
    }

    async fn reconnect(&mut self, until: Instant) -> Result<()> {
        self.reconnects += 1;
        loop {
            match Conn::connect(self.peer).await {
                Ok(conn) => {
                    self.conn = conn;
                    return Ok(());
                }
                Err(error) if Instant::now() > until => return Err(error.into()),
                Err(_) => tokio::time::sleep(CONNECT_PAUSE).await,
            }
        }
    }
}
