//! Portmap version 2 and rpcbind versions 3 and 4 (RFC 1833): where NFS and MOUNT answer. Pure.

use bytes::{BufMut, BytesMut};
use slice_proto::ids::Xid;
use slice_proto::portmap::{
    self, AddrEntry, AddrList, IPPROTO_TCP, IPPROTO_UDP, Mapping, MappingList, Rpcb, RpcbList, Text, proc2,
    proc3,
};
use slice_proto::rpc_msg::{ReplyStatus, encode_reply, encode_success, program, version};
use slice_proto::xdr::{Decode, Encode, Put, Reader};
use std::net::{IpAddr, SocketAddr};

/// Something that answers at a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registration {
    /// Program.
    pub prog: u32,
    /// Version.
    pub vers: u32,
    /// TCP, or UDP.
    pub tcp: bool,
    /// Where.
    pub addr: SocketAddr,
}

/// What a µproxy registers: NFS over TCP, MOUNT over both.
#[must_use]
pub fn services(listen: SocketAddr) -> Vec<Registration> {
    let at = |prog, vers, tcp| Registration { prog, vers, tcp, addr: listen };
    vec![
        at(program::NFS, version::NFS3, true),
        at(program::MOUNT, version::MOUNT1, true),
        at(program::MOUNT, version::MOUNT3, true),
        at(program::MOUNT, version::MOUNT1, false),
        at(program::MOUNT, version::MOUNT3, false),
    ]
}

/// How a call came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// Its transaction id.
    pub xid: Xid,
    /// 2, 3 or 4.
    pub vers: u32,
    /// Its number.
    pub proc: u32,
    /// Over TCP, or UDP.
    pub tcp: bool,
    /// Seconds since 1970, for GETTIME.
    pub now_s: u32,
}

/// A port mapper of our own registrations only: SET and UNSET are refused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Portmapper(pub Vec<Registration>);

impl Portmapper {
    /// Answers a call; an empty reply means none (CALLIT, which would hide who calls).
    pub fn answer(&self, asked: Asked, args: &[u8], w: &mut BytesMut) {
        let Asked { xid, vers, proc, tcp, now_s } = asked;
        let start = w.len();
        encode_success(w, xid);
        let mut r = Reader::new(args);
        let answered = if vers == version::PORTMAP2 {
            self.version2(proc, &mut r, w)
        } else {
            self.version34(vers, proc, &mut r, tcp, now_s, w)
        };
        let refusal = match answered {
            Answer::Given => return,
            Answer::Silence => return w.truncate(start),
            Answer::NoSuchProc => ReplyStatus::ProcUnavail,
            Answer::Garbage => ReplyStatus::GarbageArgs,
        };
        w.truncate(start);
        encode_reply(w, xid, refusal);
    }

    /// The registration of a program: of this version, else of any (the caller then learns from the program itself).
    fn find(&self, prog: u32, vers: u32, tcp: bool) -> Option<&Registration> {
        let mut all = self.0.iter().filter(|r| r.prog == prog && r.tcp == tcp);
        all.clone().find(|r| r.vers == vers).or_else(|| all.next())
    }

    fn version2(&self, proc: u32, r: &mut Reader<'_>, w: &mut BytesMut) -> Answer {
        match proc {
            proc2::NULL => {}
            proc2::SET | proc2::UNSET => w.put_bool(false),
            proc2::GETPORT => {
                let Ok(asked) = Mapping::decode(r) else { return Answer::Garbage };
                let found = match asked.prot {
                    IPPROTO_TCP => self.find(asked.prog, asked.vers, true),
                    IPPROTO_UDP => self.find(asked.prog, asked.vers, false),
                    _ => None,
                };
                w.put_u32(found.map_or(0, |r| u32::from(r.addr.port())));
            }
            proc2::DUMP => {
                let mapping = |r: &Registration| Mapping {
                    prog: r.prog,
                    vers: r.vers,
                    prot: if r.tcp { IPPROTO_TCP } else { IPPROTO_UDP },
                    port: u32::from(r.addr.port()),
                };
                MappingList(self.0.iter().map(mapping).collect()).encode(w);
            }
            proc2::CALLIT => return Answer::Silence,
            _ => return Answer::NoSuchProc,
        }
        Answer::Given
    }

    fn version34(
        &self,
        vers: u32,
        proc: u32,
        r: &mut Reader<'_>,
        tcp: bool,
        now_s: u32,
        w: &mut BytesMut,
    ) -> Answer {
        let v4 = vers == version::RPCBIND4;
        match proc {
            proc3::NULL => {}
            proc3::SET | proc3::UNSET => w.put_bool(false),
            proc3::GETADDR | proc3::GETVERSADDR if proc == proc3::GETADDR || v4 => {
                let Ok(asked) = Rpcb::decode(r) else { return Answer::Garbage };
                let exact = proc == proc3::GETVERSADDR;
                let found = self
                    .find(asked.prog, asked.vers, wants_tcp(&asked, tcp))
                    .filter(|r| !exact || r.vers == asked.vers);
                let addr = found.map(|r| portmap::uaddr(reachable(r.addr, &asked))).unwrap_or_default();
                Text(addr.as_bytes()).encode(w);
            }
            proc3::DUMP => {
                let addrs: Vec<String> = self.0.iter().map(|r| portmap::uaddr(r.addr)).collect();
                let entries = self.0.iter().zip(&addrs).map(|(r, addr)| Rpcb {
                    prog: r.prog,
                    vers: r.vers,
                    netid: portmap::netid(r.addr.ip(), r.tcp).as_bytes(),
                    addr: addr.as_bytes(),
                    owner: b"superuser",
                });
                RpcbList(entries.collect()).encode(w);
            }
            proc3::CALLIT => return Answer::Silence,
            proc3::INDIRECT if v4 => return Answer::Silence,
            proc3::GETTIME => w.put_u32(now_s),
            proc3::GETADDRLIST if v4 => {
                let Ok(asked) = Rpcb::decode(r) else { return Answer::Garbage };
                let found: Vec<_> = self
                    .0
                    .iter()
                    .filter(|r| (r.prog, r.vers) == (asked.prog, asked.vers))
                    .map(|r| (r, portmap::uaddr(reachable(r.addr, &asked))))
                    .collect();
                let entries = found.iter().map(|(r, addr)| AddrEntry {
                    addr: addr.as_bytes(),
                    netid: portmap::netid(r.addr.ip(), r.tcp).as_bytes(),
                    semantics: if r.tcp { portmap::NC_TPI_COTS_ORD } else { portmap::NC_TPI_CLTS },
                    family: if r.addr.is_ipv4() { b"inet" } else { b"inet6" },
                    proto: if r.tcp { b"tcp" } else { b"udp" },
                });
                AddrList(entries.collect()).encode(w);
            }
            _ => return Answer::NoSuchProc,
        }
        Answer::Given
    }
}

enum Answer {
    Given,
    Silence,
    NoSuchProc,
    Garbage,
}

/// The transport asked about: the one named, else the one asked over (RFC 1833 section 2.2.1).
fn wants_tcp(asked: &Rpcb<'_>, over_tcp: bool) -> bool {
    match asked.netid {
        b"tcp" | b"tcp6" => true,
        b"udp" | b"udp6" => false,
        _ => over_tcp,
    }
}

/// The address to tell: where we listen on all addresses, the one by which the caller says that it reached us.
fn reachable(addr: SocketAddr, asked: &Rpcb<'_>) -> SocketAddr {
    if !addr.ip().is_unspecified() {
        return addr;
    }
    let hint: Option<IpAddr> =
        std::str::from_utf8(asked.addr).ok().and_then(portmap::parse_uaddr).map(|hint| hint.ip());
    SocketAddr::new(hint.unwrap_or(addr.ip()), addr.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use slice_proto::rpc_msg::ReplyHeader;

    fn mapper(listen: &str) -> Portmapper {
        Portmapper(services(listen.parse().unwrap()))
    }

    fn ask(m: &Portmapper, vers: u32, proc: u32, args: &impl Encode) -> BytesMut {
        let (mut a, mut w) = (BytesMut::new(), BytesMut::new());
        args.encode(&mut a);
        m.answer(Asked { xid: Xid(1), vers, proc, tcp: true, now_s: 77 }, &a, &mut w);
        w
    }

    fn port(m: &Portmapper, prog: u32, vers: u32, prot: u32) -> u32 {
        let w = ask(m, 2, proc2::GETPORT, &Mapping { prog, vers, prot, port: 0 });
        Reader::at(&w, 24).u32().unwrap()
    }

    fn addr(m: &Portmapper, vers: u32, proc: u32, asked: Rpcb<'_>) -> Option<SocketAddr> {
        let w = ask(m, vers, proc, &asked);
        Text::decode(&mut Reader::at(&w, 24)).unwrap().socket().unwrap()
    }

    #[test]
    fn ports_are_told_per_protocol() {
        let m = mapper("127.0.0.1:2050");
        assert_eq!(port(&m, program::NFS, 3, IPPROTO_TCP), 2050);
        assert_eq!(port(&m, program::NFS, 4, IPPROTO_TCP), 2050, "NFS itself will answer PROG_MISMATCH");
        assert_eq!(port(&m, program::NFS, 3, IPPROTO_UDP), 0);
        assert_eq!(port(&m, program::MOUNT, 3, IPPROTO_UDP), 2050);
        assert_eq!(port(&m, program::NLM, 4, IPPROTO_TCP), 0);
    }

    #[test]
    fn rpcbind_tells_an_address_that_the_caller_can_reach() {
        let m = mapper("0.0.0.0:2049");
        let asked = Rpcb { prog: program::NFS, vers: 3, netid: b"tcp", addr: b"10.0.0.9.0.111", owner: b"" };
        assert_eq!(addr(&m, 3, proc3::GETADDR, asked), Some("10.0.0.9:2049".parse().unwrap()));
        assert_eq!(addr(&m, 4, proc3::GETVERSADDR, Rpcb { vers: 4, ..asked }), None);
        assert_eq!(addr(&m, 4, proc3::GETADDR, Rpcb { netid: b"udp", ..asked }), None);
        let lists = ask(&m, 4, proc3::GETADDRLIST, &Rpcb { prog: program::MOUNT, ..asked });
        assert!(lists.len() > 100);
        assert_eq!(Reader::at(&ask(&m, 3, proc3::GETTIME, &0u32), 24).u32(), Ok(77));
    }

    #[test]
    fn indirect_calls_get_silence_and_strangers_register_nothing() {
        let m = mapper("127.0.0.1:2050");
        assert!(ask(&m, 2, proc2::CALLIT, &0u32).is_empty());
        assert!(ask(&m, 4, proc3::INDIRECT, &0u32).is_empty());
        let w = ask(&m, 2, proc2::SET, &Mapping { prog: 1, vers: 1, prot: 6, port: 1 });
        assert_eq!(Reader::at(&w, 24).u32(), Ok(0));
        let w = ask(&m, 3, proc3::GETVERSADDR, &0u32);
        assert_eq!(ReplyHeader::decode(&w).unwrap().status, ReplyStatus::ProcUnavail);
        let w = ask(&m, 2, proc2::GETPORT, &0u32);
        assert_eq!(ReplyHeader::decode(&w).unwrap().status, ReplyStatus::GarbageArgs);
    }

    proptest! {
        #[test]
        fn arbitrary_arguments_never_panic(vers in 2u32..5, proc in 0u32..14, args in prop::collection::vec(any::<u8>(), 0..80)) {
            let asked = Asked { xid: Xid(1), vers, proc, tcp: false, now_s: 0 };
            mapper("[::]:2049").answer(asked, &args, &mut BytesMut::new());
        }
    }
}
