//! Calls to the agent: one connection, one call, one thread.

use std::path::PathBuf;
use std::time::Duration;

use http::Uri;

use crate::proto;
use crate::proto::attachments_client::AttachmentsClient;
use crate::wire::{self, Transport};

/// A runtime waits for us with a lock held; containerd's own limit for a sandbox is far above this.
const CALL_LIMIT: Duration = Duration::from_secs(60);

/// Why a call had no good answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody listens, or the connection broke before there was an answer.
    #[error("the agent cannot be reached at {}", path.display())]
    Away {
        /// Its socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The agent refused.
    #[error("{}", .0.message())]
    Refused(Box<tonic::Status>),
}

impl CallError {
    /// Is it worth asking again later?
    pub fn is_away(&self) -> bool {
        match self {
            Self::Away { .. } => true,
            Self::Refused(status) => {
                matches!(status.code(), tonic::Code::Unavailable | tonic::Code::DeadlineExceeded)
            }
        }
    }

    /// The code of CNI spec 1.1, section 5.
    pub fn code(&self) -> u32 {
        match self {
            error if error.is_away() => 11,
            Self::Refused(status) => match status.code() {
                tonic::Code::NotFound => 3,
                tonic::Code::DataLoss => 5,
                tonic::Code::InvalidArgument => 7,
                tonic::Code::ResourceExhausted => 101,
                tonic::Code::FailedPrecondition => 102,
                _ => 100,
            },
            Self::Away { .. } => 11,
        }
    }
}

/// What the verbs need of the agent; the tests have a second implementation.
pub trait Agent {
    /// ADD.
    fn add(&self, request: proto::AddRequest) -> Result<proto::AddReply, CallError>;
    /// DEL.
    fn del(&self, request: proto::DelRequest) -> Result<(), CallError>;
    /// CHECK.
    fn check(&self, request: proto::CheckRequest) -> Result<(), CallError>;
    /// STATUS.
    fn status(&self) -> Result<(), CallError>;
    /// GC.
    fn gc(&self, request: proto::GcRequest) -> Result<(), CallError>;
}

/// The agent behind a unix socket.
#[derive(Debug)]
pub struct Socket {
    /// Where it listens.
    pub path: PathBuf,
}

impl Socket {
    fn call<T, F>(&self, work: impl FnOnce(AttachmentsClient<Transport>) -> F) -> Result<T, CallError>
    where
        F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let away = |error: &(dyn std::error::Error + 'static)| CallError::Away {
            path: self.path.clone(),
            source: innermost(error),
        };
        // HTTP/2 wants a name; the socket has none.
        let agent = Uri::from_static("http://agent");
        let client = |transport| work(AttachmentsClient::with_origin(transport, agent));
        match wire::call(&self.path, CALL_LIMIT, client) {
            Ok(Ok(response)) => Ok(response.into_inner()),
            // What the agent says has no cause here: this broke on the way, perhaps with the agent.
            Ok(Err(status)) if std::error::Error::source(&status).is_some() => Err(away(&status)),
            Ok(Err(status)) => Err(CallError::Refused(Box::new(status))),
            Err(broken) => Err(away(&*broken)),
        }
    }
}

/// The transport says the same thing three times; its root says it once.
fn innermost(error: &(dyn std::error::Error + 'static)) -> Box<dyn std::error::Error + Send + Sync> {
    let root = std::iter::successors(Some(error), |cause| cause.source()).last().unwrap_or(error);
    root.to_string().into()
}

impl Agent for Socket {
    fn add(&self, request: proto::AddRequest) -> Result<proto::AddReply, CallError> {
        self.call(|mut client| async move { client.add(request).await })
    }

    fn del(&self, request: proto::DelRequest) -> Result<(), CallError> {
        self.call(|mut client| async move { client.del(request).await }).map(drop)
    }

    fn check(&self, request: proto::CheckRequest) -> Result<(), CallError> {
        self.call(|mut client| async move { client.check(request).await }).map(drop)
    }

    fn status(&self) -> Result<(), CallError> {
        self.call(|mut client| async move { client.status(proto::StatusRequest {}).await }).map(drop)
    }

    fn gc(&self, request: proto::GcRequest) -> Result<(), CallError> {
        self.call(|mut client| async move { client.gc(request).await }).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn an_agent_that_dies_in_the_middle_of_a_call_is_away() {
        let folder = std::env::temp_dir().join(format!("hawser-cni-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("cni.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let agent = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // Settings of HTTP/2, so that the connection stands; the request is read and never answered.
            stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).unwrap();
            let mut read = 0;
            while read < 100 {
                read += stream.read(&mut [0; 4096]).unwrap();
            }
        });
        let error = Socket { path }.del(proto::DelRequest::default()).unwrap_err();
        agent.join().unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(error.is_away(), "{error:?}");
        assert_eq!(error.code(), 11);
    }
}
