//! What all doors of the control plane have in common: how connections are taken, bounded and ended.
//!
//! There are at most [`limits::CONTROL_CONNECTIONS_MAX`] at a time at one door; beyond it they wait in its backlog. Shutdown
//! answers those who wait, then ends every connection within [`limits::CONTROL_DRAIN_WITHIN`].

use std::future::Future;
use std::io;
use std::pin::pin;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::limits;

/// What takes connections.
pub(super) trait Accept {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// The next one. Nothing is lost where it is dropped before it ends.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Stream>>;
}

impl Accept for UnixListener {
    type Stream = UnixStream;
    async fn accept(&self) -> io::Result<UnixStream> {
        Ok(Self::accept(self).await?.0)
    }
}

impl Accept for TcpListener {
    type Stream = TcpStream;
    async fn accept(&self) -> io::Result<TcpStream> {
        Ok(Self::accept(self).await?.0)
    }
}

/// Converses with all who come to the door until `shutdown` ends. `router` is given what becomes true then. The door is the
/// listener and what stands for as long as it listens.
pub(super) async fn converse_until<L: Accept, G>(
    shutdown: impl Future<Output = ()>,
    (listener, guard): (L, G),
    router: impl FnOnce(watch::Receiver<bool>) -> Router,
) {
    let (closing, closed) = watch::channel(false);
    let router = router(closed.clone());
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let has_room = connections.len() < limits::CONTROL_CONNECTIONS_MAX;
        tokio::select! {
            () = &mut shutdown => break,
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a control request panicked");
                }
            }
            accepted = listener.accept(), if has_room => match accepted {
                Ok(stream) => drop(connections.spawn(converse(stream, router.clone(), closed.clone()))),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept on a control socket, trying again");
                    sleep(limits::CONTROL_POLL_EVERY).await;
                }
            },
        }
    }
    // Those who come now shall find no door, rather than one that nobody answers.
    drop((listener, guard));
    let _ = closing.send(true);
    let drained = timeout(limits::CONTROL_DRAIN_WITHIN, async { while connections.join_next().await.is_some() {} });
    if drained.await.is_err() {
        tracing::debug!(connections = connections.len(), "control connections cut at shutdown");
    }
}

/// One connection, until its end or the daemon's.
async fn converse<S>(stream: S, router: Router, mut closing: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::CONTROL_HEADER_WITHIN)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = async { drop(closing.wait_for(|closing| *closing).await) } => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "control connection ended early");
    }
}
