//! The control plane from the other side: what servers, µproxies and tools use to talk to the coordinator.

use crate::control::method;
use hyper_util::rt::TokioIo;
use slice_proto::control::auth::{PROOF_KEY, Proof};
use slice_proto::control::pb::control_client::ControlClient;
use slice_proto::control::{ConvertError, pb};
use slice_proto::secret::Identity;
use slice_rpc::clock::SharedClock;
use std::time::Duration;
use thiserror::Error;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Response, Status, Streaming};

/// A call that is not a watch is answered within this, or the coordinator is away.
const PATIENCE: Duration = Duration::from_secs(10);
/// A coordinator that does not accept within this is away.
const CONNECT: Duration = Duration::from_secs(5);
/// A watch whose coordinator's machine is gone is noticed after this and the next.
const KEEPALIVE: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Why the coordinator did not do what it was asked.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The address is none.
    #[error("{0:?} is not a host:port address of a coordinator")]
    Address(String),
    /// It is away: worth another try.
    #[error("the coordinator at {address} cannot be reached ({why}): is it running?")]
    Away {
        /// Where it should be.
        address: String,
        /// What the transport says.
        why: String,
    },
    /// It said no, and will again.
    #[error("{0}")]
    Refused(String),
    /// Who answers there does not have the ensemble's secret.
    #[error(
        "who answers at {address} does not prove the ensemble's secret: it is not this ensemble's coordinator"
    )]
    Impostor {
        /// Where.
        address: String,
    },
    /// What it says cannot be.
    #[error("the coordinator's answer cannot be understood: {0}")]
    Nonsense(#[from] ConvertError),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(#[from] getrandom::Error),
}

impl ClientError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub const fn is_passing(&self) -> bool {
        matches!(self, Self::Away { .. })
    }
}

type Result<T> = std::result::Result<T, ClientError>;

/// A connection to the coordinator, made and made again as needed. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    inner: ControlClient<Channel>,
    identity: Identity,
    address: String,
    clock: SharedClock,
}

impl Client {
    /// A client of the coordinator whose control plane listens at `address` (`host:port`). Connects when first used.
    ///
    /// # Errors
    /// [`ClientError::Address`].
    pub fn new(address: &str, identity: Identity, clock: SharedClock) -> Result<Self> {
        let wrong = |_| ClientError::Address(address.to_owned());
        let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(wrong)?;
        let endpoint = endpoint
            .connect_timeout(CONNECT)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        // Names are looked up at every connection: the coordinator may have moved.
        let connector = tower::service_fn(|uri: Uri| async move {
            let address = uri.authority().map_or("", |authority| authority.as_str());
            slice_rpc::names::connect(address).await.map(TokioIo::new)
        });
        let inner = ControlClient::new(endpoint.connect_with_connector_lazy(connector));
        Ok(Self { inner, identity, address: address.to_owned(), clock })
    }

    /// Where the coordinator is.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    fn request<T>(&self, method: &str, message: T) -> Result<(Proof, Request<T>)> {
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce)?;
        let proof = Proof::new(method, self.clock.now_ns(), nonce);
        let mut request = Request::new(message);
        if let Ok(value) = proof.request(&self.identity).parse() {
            request.metadata_mut().insert(PROOF_KEY, value);
        }
        Ok((proof, request))
    }

    fn taken<T>(&self, proof: &Proof, response: std::result::Result<Response<T>, Status>) -> Result<T> {
        let response = response.map_err(|status| self.refused(&status))?;
        let value = response.metadata().get(PROOF_KEY).and_then(|v| v.to_str().ok()).unwrap_or_default();
        if proof.accepts(&self.identity, value) {
            Ok(response.into_inner())
        } else {
            Err(ClientError::Impostor { address: self.address.clone() })
        }
    }

    fn refused(&self, status: &Status) -> ClientError {
        match status.code() {
            Code::FailedPrecondition
            | Code::Unauthenticated
            | Code::InvalidArgument
            | Code::Unimplemented => ClientError::Refused(status.message().to_owned()),
            _ => ClientError::Away { address: self.address.clone(), why: status.message().to_owned() },
        }
    }

    /// A stream's failure as an error of ours.
    #[must_use]
    pub fn broken(&self, status: &Status) -> ClientError {
        self.refused(status)
    }

    /// Registers a server.
    ///
    /// # Errors
    /// A [`ClientError`].
    pub async fn register(&self, message: pb::RegisterRequest) -> Result<pb::RegisterReply> {
        let (proof, mut request) = self.request(method::REGISTER, message)?;
        request.set_timeout(PATIENCE);
        let response = self.inner.clone().register(request).await;
        self.taken(&proof, response)
    }

    /// Says that a server's stamps are durable.
    ///
    /// # Errors
    /// A [`ClientError`].
    pub async fn adopted(&self, message: pb::AdoptedRequest) -> Result<pb::AdoptedReply> {
        let (proof, mut request) = self.request(method::ADOPTED, message)?;
        request.set_timeout(PATIENCE);
        let response = self.inner.clone().adopted(request).await;
        self.taken(&proof, response)
    }

    /// Says that a server is alive.
    ///
    /// # Errors
    /// A [`ClientError`].
    pub async fn heartbeat(&self, message: pb::HeartbeatRequest) -> Result<pb::HeartbeatReply> {
        let (proof, mut request) = self.request(method::HEARTBEAT, message)?;
        request.set_timeout(PATIENCE);
        let response = self.inner.clone().heartbeat(request).await;
        self.taken(&proof, response)
    }

    /// Watches what the coordinator wants of a server, and the table.
    ///
    /// # Errors
    /// A [`ClientError`].
    pub async fn watch(&self, message: pb::WatchRequest) -> Result<Streaming<pb::WatchEvent>> {
        let (proof, request) = self.request(method::WATCH, message)?;
        let response = self.inner.clone().watch(request).await;
        self.taken(&proof, response)
    }

    /// Everything there is to know.
    ///
    /// # Errors
    /// A [`ClientError`].
    pub async fn status(&self) -> Result<pb::StatusReply> {
        let (proof, mut request) = self.request(method::STATUS, pb::StatusRequest {})?;
        request.set_timeout(PATIENCE);
        let response = self.inner.clone().status(request).await;
        self.taken(&proof, response)
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({})", self.address)
    }
}
