//! Source ranges: the clients a load balancer's address admits.

use abi::Addr16;
use abi::service::SourceRange;
use aya_ebpf::btf_maps::lpm_trie::Key;

use crate::maps::SOURCE_RANGES;

/// All bits of a row: the index of the service and the client's address.
const WHOLE: u32 = 32 + 128;

/// Whether the service with this index admits the client. Asked only where a frontend says that there are ranges.
#[inline(always)]
pub fn admits(service: u32, client: &Addr16) -> bool {
    let key = Key::new(WHOLE, SourceRange { service: service.to_be(), client: *client });
    SOURCE_RANGES.get(&key).is_some()
}
