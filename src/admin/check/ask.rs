//! The servers, as they are asked.

use super::collect::Options;
use super::error::Error;
use bytes::BytesMut;
use slice_proto::ids::{Role, ServerId, Xid};
use slice_proto::nfs3::NfsStat3;
use slice_proto::peer::dir::SettledRes;
use slice_proto::peer::{self, PeerProc};
use slice_proto::rpc_msg::{OpaqueAuth, ReplyHeader, ReplyStatus, encode_call};
use slice_proto::table::RoutingTable;
use slice_proto::xdr::{Decode, Encode, Reader};
use slice_rpc::{Channel, Directory};
use std::time::Duration;
use tokio::time::Instant;

/// How often it is asked whether all is settled: nobody tells.
const SETTLE_POLL: Duration = Duration::from_millis(200);

/// A server that is asked.
#[derive(Clone)]
pub(super) struct Asked {
    pub(super) role: Role,
    pub(super) server: ServerId,
    channel: Channel,
    patience: Duration,
}

impl Asked {
    /// Sends a record, and waits for the reply.
    pub(super) async fn send(&self, record: BytesMut) -> Result<BytesMut, Error> {
        let Self { role, server, .. } = *self;
        tokio::time::timeout(self.patience, self.channel.call(record.into()))
            .await
            .map_err(|_| Error::Silent { role, server, waited: self.patience })?
            .map_err(|source| Error::Call { role, server, source })
    }

    /// Calls a private procedure; `None` if the server does not have it.
    pub(super) async fn try_call<T: for<'a> Decode<'a>>(
        &self,
        proc: PeerProc,
        args: &impl Encode,
    ) -> Result<Option<T>, Error> {
        let Self { role, server, .. } = *self;
        let mut w = BytesMut::new();
        encode_call(&mut w, Xid(0), peer::PROGRAM, peer::VERSION, proc as u32, &OpaqueAuth::NONE);
        args.encode(&mut w);
        let reply = self.send(w).await?;
        let header = ReplyHeader::decode(&reply).map_err(Error::garbled(role, server))?;
        match header.status {
            ReplyStatus::Success => {}
            ReplyStatus::ProcUnavail | ReplyStatus::ProgUnavail => return Ok(None),
            status => return Err(Error::Garbled { role, server, why: format!("{status:?}") }),
        }
        T::decode(&mut Reader::at(&reply, header.body_at)).map(Some).map_err(Error::garbled(role, server))
    }

    pub(super) async fn call<T: for<'a> Decode<'a>>(
        &self,
        proc: PeerProc,
        args: &impl Encode,
    ) -> Result<T, Error> {
        let Self { role, server, .. } = *self;
        let missing = || Error::Garbled { role, server, why: format!("it does not have {proc:?}") };
        self.try_call(proc, args).await?.ok_or_else(missing)
    }

    pub(super) fn check(&self, what: &'static str, status: u32) -> Result<(), Error> {
        let Self { role, server, .. } = *self;
        if status == NfsStat3::OK.0 { Ok(()) } else { Err(Error::Refused { role, server, what, status }) }
    }
}

/// All servers of the table.
pub(super) struct Servers {
    pub(super) dirs: Vec<Asked>,
    pub(super) small: Vec<Asked>,
    pub(super) block: Vec<Asked>,
    coordinators: Vec<Asked>,
}

impl Servers {
    /// Those that own sites, and those that own none any more but may still hold something.
    pub(super) fn new(directory: &Directory, table: &RoutingTable, options: &Options) -> Result<Self, Error> {
        let servers = |role| -> Result<Vec<Asked>, Error> {
            let ask = |server| {
                let channel =
                    directory.channel(server).map_err(|source| Error::Call { role, server, source })?;
                Ok(Asked { role, server, channel, patience: options.answer })
            };
            table.servers_of(role).map(ask).collect()
        };
        let (dirs, small, block) = (servers(Role::Dir)?, servers(Role::Small)?, servers(Role::Block)?);
        if dirs.is_empty() {
            return Err(Error::NoServers);
        }
        Ok(Self { dirs, small, block, coordinators: servers(Role::Coordinator)? })
    }

    /// One of them.
    pub(super) fn get(&self, role: Role, server: ServerId) -> Option<&Asked> {
        let all = match role {
            Role::Dir => &self.dirs,
            Role::Small => &self.small,
            Role::Block => &self.block,
            Role::Coordinator => &self.coordinators,
            Role::Proxy | Role::Admin => return None,
        };
        all.iter().find(|a| a.server == server)
    }

    /// Waits until no server has anything under way.
    pub(super) async fn settle(&self, limit: Duration) -> Result<(), Error> {
        let until = Instant::now() + limit;
        loop {
            let mut unsettled = Vec::new();
            for asked in self.dirs.iter().chain(&self.small).chain(&self.block).chain(&self.coordinators) {
                // A server without the procedure has nothing that could be unsettled.
                if let Some(res) = asked.try_call::<SettledRes>(PeerProc::Settled, &()).await? {
                    asked.check("SETTLED", res.status)?;
                    if res.unsettled > 0 {
                        unsettled.push(format!("{} {}: {}", asked.role, asked.server, res.unsettled));
                    }
                }
            }
            if unsettled.is_empty() {
                return Ok(());
            }
            if Instant::now() >= until {
                let unsettled = unsettled.join(", ");
                return Err(Error::Unsettled { unsettled, waited: limit });
            }
            tokio::time::sleep(SETTLE_POLL).await;
        }
    }
}
