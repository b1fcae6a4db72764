//! What this library says of itself to servers, and what errors of the network say.

use std::error::Error;

/// Goes with every request, those that follow a redirect included: some servers refuse a request that does not say whose it is
/// (<https://meta.wikimedia.org/wiki/User-Agent_policy>).
pub(crate) const AGENT: &str = concat!("tamarack/", env!("CARGO_PKG_VERSION"));

/// Where certificates come from that a server's has to be signed with.
const TRUSTED: &str = if cfg!(any(windows, target_vendor = "apple")) {
    "trusted are the certificates of this system"
} else {
    "trusted are the certificates of this system, or, if SSL_CERT_FILE names a PEM file, those in it"
};

/// The cause at the end of the chain, as the outer ones repeat the address; and who is trusted, where that is the matter.
pub(crate) fn cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let cause = cause.to_string();
    if cause.contains("certificate") { format!("{cause}; {TRUSTED}") } else { cause }
}
