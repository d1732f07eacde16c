//! The other end of the control socket: one request a connection, errors that say what to type next.
//!
//! An answer is kept as the daemon wrote it beside its parsed form, so that `--json` passes on what a newer
//! daemon adds.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::answers::{
    Drain, ErrorBody, Inventory, Links, ObjectFilter, Objects, Pause, ReloadReport, Versioned, WhySlow,
};
use super::status::Status;
use crate::limits;

/// Each daemon started by systemd has a directory of its name here.
pub const RUN_DIR: &str = "/run/supersync";
/// What the socket is called there.
pub const SOCKET_NAME: &str = "control.sock";

/// Speaks to the daemon behind one socket.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

/// A good answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer<T> {
    /// What it means.
    pub body: T,
    /// As the daemon wrote it: one line of JSON.
    pub json: String,
}

/// Why there is no good answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The socket is there and not for us.
    #[error(
        "not allowed to use {}. Run this as root or as a member of the group that owns it: ls -l {0}",
        socket.display()
    )]
    Permission {
        /// The socket's path.
        socket: PathBuf,
    },
    /// Nobody answers.
    #[error(
        "cannot reach supersyncd at {}: {cause}. Is it running? Try: systemctl status {}",
        socket.display(), unit(socket)
    )]
    Unreachable {
        /// The socket's path.
        socket: PathBuf,
        /// What stood in the way.
        cause: Cause,
    },
    /// The daemon said no.
    #[error("{error}{}", hint.as_ref().map(|hint| format!("\n{hint}")).unwrap_or_default())]
    Refused {
        /// The HTTP status.
        code: u16,
        /// What failed and why.
        error: String,
        /// What to do next.
        hint: Option<String>,
    },
    /// The daemon's answer is not of the schema this client knows.
    #[error(
        "supersyncd at {} gave an answer that this supersyncctl does not understand: {why}. Are both of the same version?",
        socket.display()
    )]
    Strange {
        /// The socket's path.
        socket: PathBuf,
        /// What is wrong with the answer.
        why: String,
    },
}

/// What stood between a client and its daemon.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// There is no socket file.
    #[error("no such file")]
    NoFile,
    /// The socket file is a dead daemon's.
    #[error("nobody listens there any more")]
    NobodyListens,
    /// Connected, but no whole answer came in time.
    #[error("no answer within {} s", .0.as_secs())]
    Silent(Duration),
    /// The connection broke before the answer was whole.
    #[error("it hung up before it had answered ({0})")]
    HungUp(hyper::Error),
    /// Anything else that connecting failed with.
    #[error("{0}")]
    Other(io::Error),
}

impl Client {
    /// A client of the daemon at `socket`; nothing is connected yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// The node as it is now.
    pub async fn status(&self) -> Result<Answer<Status>, ClientError> {
        self.ask(Method::GET, "/v1/status", limits::CONTROL_ANSWER_WITHIN).await
    }

    /// Its links, by peer.
    pub async fn links(&self) -> Result<Answer<Versioned<Links>>, ClientError> {
        self.ask(Method::GET, "/v1/links", limits::CONTROL_ANSWER_WITHIN).await
    }

    /// What holds each of its links back.
    pub async fn why_slow(&self) -> Result<Answer<Versioned<WhySlow>>, ClientError> {
        self.ask(Method::GET, "/v1/why-slow", limits::CONTROL_ANSWER_WITHIN).await
    }

    /// Up to `limit` objects.
    pub async fn objects(&self, filter: ObjectFilter, limit: usize) -> Result<Answer<Versioned<Objects>>, ClientError> {
        let target = format!("/v1/objects?filter={filter}&limit={limit}");
        self.ask(Method::GET, &target, limits::CONTROL_ANSWER_WITHIN).await
    }

    /// The node as soon as it is synced, or as it is after `patience`; the daemon answers after
    /// [`limits::CONTROL_WAIT_MAX`] at the latest.
    pub async fn wait_synced(&self, patience: Duration) -> Result<Answer<Status>, ClientError> {
        let patience = patience.min(limits::CONTROL_WAIT_MAX);
        let target = format!("/v1/wait?synced=true&timeout={}", patience.as_secs_f64());
        self.ask(Method::GET, &target, patience + limits::CONTROL_ANSWER_WITHIN).await
    }

    /// Where a trader fetches into, and up to `limit` of the objects that it knows the far trader to have, but for the
    /// first `offset`.
    pub async fn inventory(&self, offset: usize, limit: usize) -> Result<Answer<Versioned<Inventory>>, ClientError> {
        let target = format!("/v1/inventory?offset={offset}&limit={limit}");
        self.ask(Method::GET, &target, limits::CONTROL_ANSWER_WITHIN).await
    }

    /// Has the daemon read its config again.
    pub async fn reload(&self) -> Result<Answer<Versioned<ReloadReport>>, ClientError> {
        self.ask(Method::POST, "/v1/reload", limits::CONTROL_ANSWER_WITHIN).await
    }

    /// Pauses or resumes a peer.
    pub async fn set_paused(&self, peer: &str, paused: bool) -> Result<Answer<Versioned<Pause>>, ClientError> {
        let verb = if paused { "pause" } else { "resume" };
        // What a name of a peer may not hold is no name of any.
        let escaped: String = peer.bytes().map(escape).collect();
        self.ask(Method::POST, &format!("/v1/{verb}?peer={escaped}"), limits::CONTROL_ANSWER_WITHIN).await
    }

    /// Has the daemon end in good order; it has only begun to when this returns.
    pub async fn drain(&self) -> Result<Answer<Versioned<Drain>>, ClientError> {
        self.ask(Method::POST, "/v1/drain", limits::CONTROL_ANSWER_WITHIN).await
    }

    /// The daemon's process, to be waited for; `None` where the kernel does not tell it, before Linux 6.5.
    pub async fn process(&self) -> Result<Option<Process>, ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.not_connected(error))?;
        let other = |error: io::Error| self.unreachable(Cause::Other(error));
        match getsockopt(&stream, sockopt::PeerPidfd) {
            Ok(process) => Ok(Some(Process(process))),
            Err(Errno::ENOPROTOOPT) => Ok(None),
            Err(errno) => Err(other(errno.into())),
        }
    }

    /// One request and its answer, whole within `within`.
    pub async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        target: &str,
        within: Duration,
    ) -> Result<Answer<T>, ClientError> {
        let (code, body) = match timeout(within, self.exchange(method, target)).await {
            Ok(answer) => answer?,
            Err(_) => return Err(self.unreachable(Cause::Silent(within))),
        };
        if code != StatusCode::OK {
            return Err(match serde_json::from_slice::<ErrorBody>(&body) {
                Ok(ErrorBody { error, hint }) => ClientError::Refused { code: code.as_u16(), error, hint },
                Err(_) => self.strange(format!("HTTP status {code} without an error text")),
            });
        }
        let json = String::from_utf8(body.into()).map_err(|error| self.strange(error.to_string()))?;
        let body = serde_json::from_str(&json).map_err(|error| self.strange(error.to_string()))?;
        Ok(Answer { body, json })
    }

    async fn exchange(&self, method: Method, target: &str) -> Result<(StatusCode, Bytes), ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.not_connected(error))?;
        let hung_up = |error| self.unreachable(Cause::HungUp(error));
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(hung_up)?;
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header("host", "localhost")
            .header("connection", "close")
            .body(Empty::<Bytes>::new())
            .map_err(|error| self.strange(error.to_string()))?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(hung_up)?;
            let code = response.status();
            let body = Limited::new(response.into_body(), limits::CONTROL_ANSWER_BYTES_MAX).collect().await;
            match body {
                Ok(body) => Ok((code, body.to_bytes())),
                Err(error) => match error.downcast::<hyper::Error>() {
                    Ok(error) => Err(hung_up(*error)),
                    Err(error) => Err(self.strange(format!("{error}; ask for less with --limit"))),
                },
            }
        };
        // The connection's end is no event of its own: the answer is whole by then, or fails with the reason.
        let mut answer = std::pin::pin!(answer);
        tokio::select! {
            answer = &mut answer => answer,
            _ = connection => answer.await,
        }
    }

    fn not_connected(&self, error: io::Error) -> ClientError {
        match error.kind() {
            io::ErrorKind::PermissionDenied => ClientError::Permission { socket: self.socket.clone() },
            io::ErrorKind::NotFound => self.unreachable(Cause::NoFile),
            io::ErrorKind::ConnectionRefused => self.unreachable(Cause::NobodyListens),
            _ => self.unreachable(Cause::Other(error)),
        }
    }

    fn unreachable(&self, cause: Cause) -> ClientError {
        ClientError::Unreachable { socket: self.socket.clone(), cause }
    }

    fn strange(&self, why: String) -> ClientError {
        ClientError::Strange { socket: self.socket.clone(), why }
    }
}

/// A process that serves a control socket.
#[derive(Debug)]
pub struct Process(OwnedFd);

impl Process {
    /// Whether it ends within this time. Blocks the thread until then.
    pub fn ends_within(&self, within: Duration) -> io::Result<bool> {
        let by = Instant::now() + within;
        loop {
            let left = PollTimeout::try_from(by.saturating_duration_since(Instant::now())).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], left) {
                Ok(0) if Instant::now() < by => {}
                Err(Errno::EINTR) => {}
                ended => return Ok(ended? > 0),
            }
        }
    }
}

/// A byte of a query's value: letters, digits and what else needs no escaping (RFC 3986, section 2.3) as they are.
fn escape(byte: u8) -> String {
    match byte {
        b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    }
}

/// The systemd unit of the daemon at `socket`, as far as the path tells: `/run/supersync/NAME/control.sock`.
fn unit(socket: &Path) -> String {
    let name = socket
        .strip_prefix(RUN_DIR)
        .ok()
        .filter(|rest| rest.components().count() == 2 && rest.ends_with(SOCKET_NAME))
        .and_then(|rest| rest.parent()?.to_str());
    name.map_or_else(|| "'supersyncd@*'".to_owned(), |name| format!("supersyncd@{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreachable_daemon_is_named_with_what_to_type_next() {
        let check = |socket: &str, cause, expected: &str| {
            let error = Client::new(socket).unreachable(cause);
            assert_eq!(error.to_string(), expected);
        };
        check(
            "/run/supersync/trader1/control.sock",
            Cause::NoFile,
            "cannot reach supersyncd at /run/supersync/trader1/control.sock: no such file. \
             Is it running? Try: systemctl status supersyncd@trader1",
        );
        check(
            "/srv/x.sock",
            Cause::NobodyListens,
            "cannot reach supersyncd at /srv/x.sock: nobody listens there any more. \
             Is it running? Try: systemctl status 'supersyncd@*'",
        );
    }

    #[test]
    fn a_socket_that_is_not_for_us_says_who_may_use_it() {
        let error = Client::new("/run/x.sock").not_connected(io::ErrorKind::PermissionDenied.into());
        assert!(matches!(error, ClientError::Permission { .. }));
        let expected = "not allowed to use /run/x.sock. \
                        Run this as root or as a member of the group that owns it: ls -l /run/x.sock";
        assert_eq!(error.to_string(), expected);
    }
}
