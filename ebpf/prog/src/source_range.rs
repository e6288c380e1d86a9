//! Source ranges: the clients a load balancer's address admits.

use abi::service::SourceRange;
use aya_ebpf::btf_maps::lpm_trie::Key;

use crate::maps::SOURCE_RANGES;
use crate::service::Scratch;

/// All bits of a row: the index of the service and the client's address.
const WHOLE: u32 = 32 + 128;

/// Whether the service with this index admits `scratch.client`. Asked only where a frontend says that there are ranges.
#[inline(always)]
pub fn admits(service: u32, scratch: &mut Scratch) -> bool {
    scratch.range = Key::new(WHOLE, SourceRange { service: service.to_be(), client: scratch.client.client });
    SOURCE_RANGES.get(&scratch.range).is_some()
}
