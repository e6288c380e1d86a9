//! A Secret for the token of a service account gets it from the server, which alone can sign one.
//!
//! A new Secret stays as it is written. The controller that looks after such Secrets then says the uid of the account, and with
//! that the token comes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::api::Call;
use crate::auth::legacy_token;
use crate::status::{Refusal, Result};
use crate::tree::set;

/// The type of such Secrets.
pub const TYPE: &str = "kubernetes.io/service-account-token";
/// The annotation with the account's name.
pub const ACCOUNT: &str = "kubernetes.io/service-account.name";
/// The annotation with its uid.
pub const UID: &str = "kubernetes.io/service-account.uid";

/// Writes the token into a Secret that has none.
pub fn fill(call: &Call, secret: &mut Value) -> Result<()> {
    let wanted = legacy_token::wanted(&call.api.tokens, &call.api.objects, secret);
    if let Some(token) = wanted.map_err(Refusal::internal)? {
        set(secret, &["data", "token"], STANDARD.encode(token));
    }
    Ok(())
}
