//! Signs the server's own certificates anew, long before they expire.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::pki::{Pki, PkiError};
use crate::tls::{Rotating, TlsError};

/// Certificates live a year; a month of failing to sign would still be no outage.
const EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// The certificates of this server, and what it takes to sign them again.
pub struct Certificates {
    pub pki: Pki,
    /// Addresses under which the server is reached.
    pub addresses: Vec<IpAddr>,
    pub serving: Arc<Rotating>,
    pub to_nodes: Arc<Rotating>,
}

#[derive(Debug, thiserror::Error)]
enum RotationError {
    #[error(transparent)]
    Pki(#[from] PkiError),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl Certificates {
    /// The first certificates.
    pub fn new(pki: Pki, addresses: Vec<IpAddr>) -> Result<Self, crate::StartError> {
        let serving = Rotating::new(&pki.apiserver(&addresses)?)?;
        let to_nodes = Rotating::new(&pki.kubelet_client()?)?;
        Ok(Self { pki, addresses, serving, to_nodes })
    }

    /// Replaces both certificates each day until the server stops.
    pub async fn keep_fresh(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = stop.cancelled() => return,
            }
            match self.replace() {
                Ok(()) => tracing::info!("signed the server's certificates anew"),
                Err(error) => tracing::error!(%error, "the server's certificates could not be signed anew"),
            }
        }
    }

    fn replace(&self) -> Result<(), RotationError> {
        self.serving.replace(&self.pki.apiserver(&self.addresses)?)?;
        self.to_nodes.replace(&self.pki.kubelet_client()?)?;
        Ok(())
    }
}
