//! HTTP/2 over a unix socket for one call, on the calling thread alone.
//!
//! A plugin lives for a millisecond: an event loop with its descriptors, timers and queues would cost it more than the call. So
//! the socket blocks, what is there to be done is done, and then the thread waits for the socket until it is time to give up.

use std::cell::RefCell;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use h2::client::{Builder, SendRequest};
use h2::{RecvStream, SendStream};
use http::{Request, Response};
use http_body::{Body as _, Frame};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service};

/// Bytes that are read at a time.
const CHUNK: usize = 16 << 10;

/// A failure on the way.
pub type Broken = Box<dyn std::error::Error + Send + Sync>;

/// Connects, has `work` make one call, and carries its bytes until it is done or `limit` is over.
pub fn call<T, F>(path: &Path, limit: Duration, work: impl FnOnce(Transport) -> F) -> Result<T, Broken>
where
    F: Future<Output = T>,
{
    let deadline = Instant::now() + limit;
    let stream = UnixStream::connect(path)?;
    stream.set_write_timeout(Some(limit))?;
    let socket = Rc::new(RefCell::new(Socket { stream, arrived: BytesMut::new(), is_over: false }));
    let woken = Arc::new(Woken(AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&woken));
    let mut context = Context::from_waker(&waker);
    // Writing blocks, so that this needs nothing from the other side.
    let handshake = Builder::new().enable_push(false).handshake::<_, Bytes>(Shared(Rc::clone(&socket)));
    let (sender, connection) = match pin!(handshake).poll(&mut context) {
        Poll::Ready(done) => done?,
        Poll::Pending => return Err(io::Error::from(io::ErrorKind::WouldBlock).into()),
    };
    let (mut work, mut connection) = (pin!(work(Transport(sender))), pin!(connection));
    loop {
        woken.0.store(false, Ordering::Relaxed);
        if let Poll::Ready(done) = work.as_mut().poll(&mut context) {
            return Ok(done);
        }
        // A connection that ends tells those who wait for it, and they say why.
        if connection.as_mut().poll(&mut context).is_ready() {
            return match work.as_mut().poll(&mut context) {
                Poll::Ready(done) => Ok(done),
                Poll::Pending => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            };
        }
        if !woken.0.load(Ordering::Relaxed) {
            socket.borrow_mut().wait(deadline)?;
        }
    }
}

/// Somebody can go on.
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A blocking socket, and what has come by it.
struct Socket {
    stream: UnixStream,
    arrived: BytesMut,
    is_over: bool,
}

impl Socket {
    /// Waits for more to come.
    fn wait(&mut self, deadline: Instant) -> io::Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        let start = self.arrived.len();
        self.arrived.resize(start + CHUNK, 0);
        let read = self.stream.read(&mut self.arrived[start..]);
        let length = match &read {
            Ok(length) => *length,
            Err(_) => 0,
        };
        self.arrived.truncate(start + length);
        match read {
            Ok(length) => self.is_over = length == 0,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// The connection's hold on the socket.
struct Shared(Rc<RefCell<Socket>>);

impl AsyncRead for Shared {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut socket = self.0.borrow_mut();
        if socket.arrived.is_empty() && !socket.is_over {
            return Poll::Pending;
        }
        let length = socket.arrived.len().min(into.remaining());
        into.put_slice(&socket.arrived.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Shared {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(self.0.borrow_mut().stream.write(bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.borrow().stream.shutdown(std::net::Shutdown::Write))
    }
}

/// What generated clients send their requests by.
pub struct Transport(SendRequest<Bytes>);

impl Service<Request<Body>> for Transport {
    type Response = Response<Received>;
    type Error = Broken;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        self.0.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (parts, body) = request.into_parts();
        let sent = self.0.send_request(Request::from_parts(parts, ()), false);
        Box::pin(async move {
            let (response, stream) = sent?;
            send(body, stream).await?;
            Ok(response.await?.map(|stream| Received { stream, is_read: false }))
        })
    }
}

async fn send(mut body: Body, mut stream: SendStream<Bytes>) -> Result<(), Broken> {
    while let Some(frame) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        if let Ok(data) = frame?.into_data() {
            // The connection sends it as the other side has room.
            stream.send_data(data, false)?;
        }
    }
    Ok(stream.send_data(Bytes::new(), true)?)
}

/// The body of an answer.
pub struct Received {
    stream: RecvStream,
    /// Whether its data has come; then there are trailers.
    is_read: bool,
}

impl http_body::Body for Received {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if !self.is_read {
            if let Some(data) = ready!(self.stream.poll_data(context)) {
                let data = data?;
                self.stream.flow_control().release_capacity(data.len())?;
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            self.is_read = true;
        }
        let trailers = ready!(self.stream.poll_trailers(context))?;
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use tonic::codegen::http::Uri;

    use super::*;
    use crate::proto;
    use crate::proto::attachments_client::AttachmentsClient;
    use crate::proto::attachments_server::{Attachments, AttachmentsServer};

    /// Counts what GC lists, and refuses everything else.
    struct Counting;

    type Answer<T> = Result<tonic::Response<T>, tonic::Status>;

    #[tonic::async_trait]
    impl Attachments for Counting {
        async fn add(&self, _: tonic::Request<proto::AddRequest>) -> Answer<proto::AddReply> {
            Err(tonic::Status::unimplemented("add"))
        }

        async fn del(&self, _: tonic::Request<proto::DelRequest>) -> Answer<proto::DelReply> {
            Err(tonic::Status::unimplemented("del"))
        }

        async fn check(&self, _: tonic::Request<proto::CheckRequest>) -> Answer<proto::CheckReply> {
            Err(tonic::Status::unimplemented("check"))
        }

        async fn status(&self, _: tonic::Request<proto::StatusRequest>) -> Answer<proto::StatusReply> {
            Err(tonic::Status::unimplemented("status"))
        }

        async fn gc(&self, request: tonic::Request<proto::GcRequest>) -> Answer<proto::GcReply> {
            Ok(tonic::Response::new(proto::GcReply { removed: request.into_inner().valid.len() as u32 }))
        }
    }

    const LIMIT: Duration = Duration::from_secs(60);

    fn client(transport: Transport) -> AttachmentsClient<Transport> {
        AttachmentsClient::with_origin(transport, Uri::from_static("http://agent"))
    }

    #[test]
    fn a_request_larger_than_every_window_arrives_whole_and_a_refusal_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cni.sock");
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(async { tokio::net::UnixListener::bind(&path).unwrap() });
        let incoming = tokio_stream::wrappers::UnixListenerStream::new(listener);
        let server = tonic::transport::Server::builder().add_service(AttachmentsServer::new(Counting));
        runtime.spawn(async move { server.serve_with_incoming(incoming).await.unwrap() });
        let one =
            |number: u32| proto::Attachment { container_id: format!("{number:064}"), ifname: "eth0".into() };
        let request = proto::GcRequest { valid: (0..40_000).map(one).collect() };
        let gc = |transport| async move { client(transport).gc(request).await };
        assert_eq!(call(&path, LIMIT, gc).unwrap().unwrap().into_inner().removed, 40_000);
        let status = |transport| async move { client(transport).status(proto::StatusRequest {}).await };
        let refused = call(&path, LIMIT, status).unwrap().unwrap_err();
        assert_eq!((refused.code(), refused.message()), (tonic::Code::Unimplemented, "status"));
    }

    #[test]
    fn an_agent_that_says_nothing_is_waited_for_as_long_as_the_limit_says() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cni.sock");
        let _silent = UnixListener::bind(&path).unwrap();
        let status = |transport| async move { client(transport).status(proto::StatusRequest {}).await };
        let (began, limit) = (Instant::now(), Duration::from_millis(300));
        let error = call(&path, limit, status).unwrap_err();
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        assert_eq!(kind, Some(io::ErrorKind::TimedOut), "{error}");
        assert!(began.elapsed() >= limit);
    }
}
