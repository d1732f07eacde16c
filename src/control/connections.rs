//! What all doors of the control plane have in common: how connections are taken, bounded and ended.
//!
//! There are at most [`limits::CONTROL_CONNECTIONS_MAX`] at a time at one door; who comes then takes the place of the
//! one that has been there longest and has sent nothing, or waits in the door's backlog. Who sends no whole request, or
//! takes nothing of its answer, does not keep its place either: [`limits::CONTROL_HEADER_WITHIN`],
//! [`limits::CONTROL_TAKEN_WITHIN`]. Shutdown answers those who wait, then ends every connection within
//! [`limits::CONTROL_DRAIN_WITHIN`].

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};

use super::socket::Served;
use crate::limits;

/// What takes connections.
pub(super) trait Accept {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// The next one. Nothing is lost where it is dropped before it ends.
    fn accept(&mut self) -> impl Future<Output = io::Result<Self::Stream>>;
}

impl Accept for Served {
    type Stream = UnixStream;
    async fn accept(&mut self) -> io::Result<UnixStream> {
        Self::accept(self).await
    }
}

impl Accept for TcpListener {
    type Stream = TcpStream;
    async fn accept(&mut self) -> io::Result<TcpStream> {
        Ok(Self::accept(self).await?.0)
    }
}

/// Converses with all who come to the door until `shutdown` ends. `router` is given what becomes true then.
pub(super) async fn converse_until(
    shutdown: impl Future<Output = ()>,
    mut door: impl Accept,
    router: impl FnOnce(watch::Receiver<bool>) -> Router,
) {
    let (closing, closed) = watch::channel(false);
    let router = router(closed.clone());
    let mut connections = JoinSet::new();
    let ended = |ended: Option<Result<(), JoinError>>| {
        if let Some(Err(error)) = ended
            && error.is_panic()
        {
            tracing::error!(%error, "a control request panicked");
        }
    };
    // The longest there first.
    let mut silent = VecDeque::new();
    let mut newcomer = None;
    // That nobody can come in.
    let mut is_told = false;
    let mut shutdown = pin!(shutdown);
    loop {
        silent.retain(Silent::is_silent);
        if connections.len() < limits::CONTROL_CONNECTIONS_MAX
            && let Some(stream) = newcomer.take()
        {
            let said = Arc::<AtomicBool>::default();
            let stream = Impatient::new(stream, Arc::clone(&said), limits::CONTROL_TAKEN_WITHIN);
            let connection = connections.spawn(converse(stream, router.clone(), closed.clone()));
            silent.push_back(Silent { said, leaves_at: Instant::now() + limits::CONTROL_SILENT_MIN, connection });
        }
        let leaves_at = silent.front().map(|longest| longest.leaves_at).filter(|_| newcomer.is_some());
        tokio::select! {
            () = &mut shutdown => break,
            Some(one) = connections.join_next() => ended(Some(one)),
            () = sleep_until(leaves_at.unwrap_or_else(Instant::now)), if leaves_at.is_some() => {
                if let Some(longest) = silent.pop_front().filter(Silent::is_silent) {
                    longest.connection.abort();
                    ended(connections.join_next().await);
                }
            }
            accepted = door.accept(), if newcomer.is_none() => match accepted {
                Ok(stream) => (newcomer, is_told) = (Some(stream), false),
                Err(error) => {
                    if !std::mem::replace(&mut is_told, true) {
                        tracing::warn!(%error, "cannot accept on a control socket, trying again");
                    }
                    sleep(limits::CONTROL_POLL_EVERY).await;
                }
            },
        }
    }
    // Those who come now shall find no door, rather than one that nobody answers.
    drop(door);
    let _ = closing.send(true);
    let drained = timeout(limits::CONTROL_DRAIN_WITHIN, async { while connections.join_next().await.is_some() {} });
    if drained.await.is_err() {
        tracing::debug!(connections = connections.len(), "control connections cut at shutdown");
    }
}

/// A connection that has sent nothing yet.
struct Silent {
    said: Arc<AtomicBool>,
    /// From then on it leaves where another has come and there is no room.
    leaves_at: Instant,
    connection: AbortHandle,
}

impl Silent {
    fn is_silent(&self) -> bool {
        !self.said.load(Ordering::Relaxed) && !self.connection.is_finished()
    }
}

/// One connection, until its end or the daemon's.
async fn converse<S>(stream: Impatient<S>, router: Router, mut closing: watch::Receiver<bool>)
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

/// A stream that fails when its other end takes nothing of what is written for so long.
struct Impatient<S> {
    stream: S,
    /// Something came.
    said: Arc<AtomicBool>,
    patience: Duration,
    /// Since when it takes nothing, as the time at which that is enough.
    stuck: Option<Pin<Box<Sleep>>>,
}

impl<S> Impatient<S> {
    fn new(stream: S, said: Arc<AtomicBool>, patience: Duration) -> Self {
        Self { stream, said, patience, stuck: None }
    }

    /// What came of a write, held against how long none has.
    fn judge<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stuck = None;
            return written;
        }
        let patience = self.patience;
        ready!(self.stuck.get_or_insert_with(|| Box::pin(sleep(patience))).as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let held = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > held {
            self.said.store(true, Ordering::Relaxed);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.judge(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.judge(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::{Read, Seek};

    use tokio::sync::oneshot;

    use super::*;

    /// At the limit of open files.
    struct Full {
        tries: usize,
        over: Option<oneshot::Sender<()>>,
    }

    impl Accept for Full {
        type Stream = UnixStream;
        async fn accept(&mut self) -> io::Result<UnixStream> {
            self.tries += 1;
            if self.tries == 3 {
                drop(self.over.take());
            }
            Err(nix::errno::Errno::EMFILE.into())
        }
    }

    /// Ten lines a second filled the log.
    #[test]
    fn that_nobody_can_come_in_is_said_once() {
        let mut log = tempfile::tempfile().expect("a file");
        let writer = log.try_clone().expect("a descriptor");
        tracing::subscriber::with_default(tracing_subscriber::fmt().with_writer(writer).finish(), || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let (over, shutdown) = oneshot::channel();
            let door = Full { tries: 0, over: Some(over) };
            runtime.block_on(converse_until(async { drop(shutdown.await) }, door, |_| Router::new()));
        });
        let mut text = String::new();
        log.rewind().and_then(|()| log.read_to_string(&mut text)).expect("text");
        assert_eq!(text.matches("cannot accept").count(), 1, "{text}");
    }

    /// 64 clients that asked for events and never read kept everybody else out.
    #[test]
    fn who_takes_nothing_of_an_answer_is_given_up() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let (ours, _theirs) = UnixStream::pair().expect("a pair");
            let mut stream = Impatient::new(ours, Arc::default(), Duration::from_millis(1));
            let error = loop {
                if let Err(error) = poll_fn(|cx| Pin::new(&mut stream).poll_write(cx, &[0; 1 << 16])).await {
                    break error;
                }
            };
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        });
    }
}
