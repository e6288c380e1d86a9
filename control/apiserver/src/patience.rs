//! How long clients are waited for.

use std::time::Duration;

/// What a client may take its time for before it is cut off.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// The TLS handshake.
    pub handshake: Duration,
    /// The head of a request of HTTP/1.1.
    pub head: Duration,
    /// The body of a request.
    pub body: Duration,
    /// Silence of a connection of HTTP/2, after which it is asked whether it is still there.
    pub silence: Duration,
    /// From one page of a list to the next; twice that at most. With kube-apiserver it is five to ten minutes, and
    /// Kubernetes' own tests give up after ten.
    pub pages: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(30),
            body: Duration::from_secs(60),
            silence: Duration::from_secs(60),
            pages: Duration::from_secs(280),
        }
    }
}
