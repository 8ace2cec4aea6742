//! Starting a gateway, and stopping it.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use rustls::ServerConfig;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::context::{Context, Dependencies, Limits};
use crate::error::GatewayError;
use crate::objects::Objects;
use crate::rest::{self, RestToken, Reviews};
use crate::s3;
use crate::server::{Answer, Forwarder, Front, Listening};

/// How a gateway is started.
pub struct GatewayOptions {
    /// Listener of S3; port 0: any.
    pub s3: SocketAddr,
    /// Listener of REST; port 0: any.
    pub rest: SocketAddr,
    /// Certificates of both; plain HTTP without.
    pub tls: Option<Arc<ServerConfig>>,
    /// Bearer tokens of REST.
    pub tokens: Vec<RestToken>,
    /// Whose word counts for the tokens that are not among those; None: nobody's.
    pub reviews: Option<Reviews>,
    /// Bounds of what is held at one time.
    pub limits: Limits,
    /// Asked about each request before it is answered here.
    pub forwarder: Option<Arc<dyn Forwarder>>,
    /// More paths on the REST listener, behind the same tokens.
    pub more: Option<Router>,
    /// Paths of REST for everybody: they see for themselves who asks.
    pub open: Option<Router>,
}

/// Why a gateway did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// A listener can't be opened.
    #[error("can't listen on {address} for {front}: is another process there?")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What for.
        front: &'static str,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The catalog can't be read.
    #[error("the site's catalog can't be read")]
    Catalog(#[source] GatewayError),
}

/// A gateway that runs.
pub struct Gateway {
    context: Arc<Context>,
    objects: Objects,
    s3: SocketAddr,
    rest: SocketAddr,
    answers: [(Front, Answer); 2],
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Gateway {
    /// Starts one: both listeners are open when it returns.
    ///
    /// # Errors
    /// A listener that can't be opened, a catalog that can't be read. A site without plan, map or agents is no error:
    /// `/ready` says so until it has them.
    pub async fn start(options: GatewayOptions, given: Dependencies) -> Result<Self, StartError> {
        let context = Context::new(given, options.limits).await.map_err(StartError::Catalog)?;
        let context = Arc::new(context);
        let objects = Objects::new(context.clone());
        let stop = CancellationToken::new();
        let s3_answer = s3::answer(context.clone(), objects.clone());
        let rest_answer =
            rest::answer(objects.clone(), options.tokens, options.reviews, options.more, options.open);
        let s3_listener = listen(Front::S3, options.s3).await?;
        let rest_listener = listen(Front::Rest, options.rest).await?;
        let mut tasks = vec![tokio::spawn(keep_fresh(context.clone(), stop.clone()))];
        let address = |listener: &TcpListener, asked| listener.local_addr().unwrap_or(asked);
        let (s3, rest) = (address(&s3_listener, options.s3), address(&rest_listener, options.rest));
        let answers = [(Front::S3, s3_answer), (Front::Rest, rest_answer)];
        for ((front, answer), listener) in answers.iter().cloned().zip([s3_listener, rest_listener]) {
            let (tls, forwarder) = (options.tls.clone(), options.forwarder.clone());
            let listening = Listening { front, listener, tls, answer, forwarder };
            tasks.push(tokio::spawn(listening.serve(context.clone(), stop.clone())));
        }
        tracing::info!(%s3, %rest, site = %context.site(), "gateway serves");
        Ok(Self { context, objects, s3, rest, answers, stop, tasks })
    }

    /// Where S3 is served.
    pub fn s3(&self) -> SocketAddr {
        self.s3
    }

    /// Where REST is served.
    pub fn rest(&self) -> SocketAddr {
        self.rest
    }

    /// What its requests share.
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// Its object layer.
    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// Answers a request that came another way: over the peer link, with the client's own credentials, checked again.
    pub async fn answer(
        &self,
        front: Front,
        request: http::Request<hyper::body::Incoming>,
    ) -> http::Response<diptych_wire::http::HttpBody> {
        let [(_, s3), (_, rest)] = &self.answers;
        match front {
            Front::S3 => s3(request).await,
            Front::Rest => rest(request).await,
        }
    }

    /// Takes no more requests, and lets those that are under way end.
    pub async fn stop(self) {
        self.stop.cancel();
        for task in self.tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task of the gateway ended badly");
            }
        }
    }
}

async fn listen(front: Front, address: SocketAddr) -> Result<TcpListener, StartError> {
    let failed = |source| StartError::Listen { address, front: front.as_str(), source };
    TcpListener::bind(address).await.map_err(failed)
}

async fn keep_fresh(context: Arc<Context>, stop: CancellationToken) {
    tokio::select! {
        () = context.keep_fresh() => {}
        () = stop.cancelled() => {}
    }
}
