//! Policy: whether a flow may begin, and whether it may go on after the policies have changed.
//!
//! A flow is asked about once and carries the epoch of the answer. What is denied later stays remembered: it goes on when it is
//! allowed again, and its answers do not pass for flows of their own.

use abi::count::Path;
use abi::drops::Drop;
use abi::endpoint::bits::AUDIT;
use abi::flow::bits;
use abi::policy::{RuleKey, action, identity};
use abi::{Addr16, Be16};
use aya_ebpf::btf_maps::lpm_trie::Key;

use crate::event::{self, Place};
use crate::flow::Entry;
use crate::hop;
use crate::maps::{CIDRS, CONTROL, ENDPOINTS, IDENTITIES, RULES, Work, work};
use crate::service::same;
use crate::verdict::{count, decode, encode};
use crate::words;

/// Who began a flow to whom, and what decided about it.
#[repr(C)]
pub struct Question {
    pub src: Addr16,
    pub dst: Addr16,
    /// Where it goes to at the destination.
    pub port: Be16,
    pub proto: u8,
    pub zero: u8,
    /// The rule set that decided.
    pub set: u32,
    /// The rule in it; zero if no row matched.
    pub rule: u32,
    /// A [`Key`] of an address: those are packed, and would be written byte by byte.
    network: [u32; 5],
    /// A [`Key`] of a row.
    row: [u32; 4],
}

/// Bits of an address.
const ADDRESS: u32 = 128;
/// To a pod.
const INGRESS: u32 = 0;
/// From a pod.
const EGRESS: u32 = 1;

/// The epoch flows that begin now belong to.
#[inline(always)]
pub fn epoch() -> u32 {
    CONTROL.get_ptr(0).map_or(0, |control| {
        // SAFETY: array elements live as long as the map; the agent stores whole words.
        unsafe { core::ptr::read_volatile(&raw const (*control).epoch) }
    })
}

/// Whether the flow in `work.forward` may begin.
#[inline(always)]
pub fn admit(work: &mut Work) -> Result<(), Drop> {
    work.question.src = work.packet.key.tuple.src;
    work.question.dst = work.forward.to.dst;
    work.question.port = work.forward.to.dport;
    ask(work)
}

/// Whether a flow that was let pass in an earlier epoch may go on.
#[inline(always)]
pub fn renew(work: &mut Work, entry: Entry) -> Result<(), Drop> {
    let now = epoch();
    // SAFETY: see `Entry`.
    let flow = unsafe { entry.as_ref() };
    if flow.epoch == now {
        return Ok(());
    }
    words::copy(&mut work.to, &flow.to);
    decode(ask_again(flow.flags))?;
    // SAFETY: as above; racing writers store the same epoch or ask again.
    unsafe { (*entry.as_ptr()).epoch = now };
    Ok(())
}

/// Asks about the flow that the packet belongs to, which becomes `work.to`. Verified by itself.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn ask_again(flags: u32) -> i32 {
    let Some(work) = work() else {
        return -(Drop::FlowTable as i32);
    };
    began(work, flags);
    encode(ask(work).map(|()| 0))
}

/// Puts down who began it.
#[inline(always)]
fn began(work: &mut Work, flags: u32) {
    let packet = &work.packet.key.tuple;
    let question = &mut work.question;
    if flags & bits::FORWARD != 0 && work.back == 0 {
        question.src = packet.src;
        question.dst = work.to.dst;
        question.port = work.to.dport;
    } else {
        // The entry of both directions is that of who began, whom the packet goes to.
        question.src = if work.back == 0 { work.to.dst } else { packet.dst };
        question.dst = packet.src;
        question.port = packet.sport;
    }
}

#[inline(always)]
fn ask(work: &mut Work) -> Result<(), Drop> {
    work.question.proto = work.packet.proto();
    work.question.zero = 0;
    // Nobody is kept from itself.
    if same(&work.question.src, &work.question.dst) {
        return Ok(());
    }
    decode(judge(EGRESS))?;
    decode(judge(INGRESS)).map(|_| ())
}

/// What one end's rule set says of the flow in question. Verified by itself. A negative answer is a reason to drop.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge(direction: u32) -> i32 {
    let Some(work) = work() else {
        return -(Drop::FlowTable as i32);
    };
    let question = &mut work.question;
    let own = if direction == EGRESS { &question.src } else { &question.dst };
    let Some(endpoint) = ENDPOINTS.get_ptr(own) else {
        return 0;
    };
    // SAFETY: the program runs under RCU: the element's memory stays valid. The agent replaces the whole row.
    let (endpoint, seen) = (unsafe { &*endpoint }, work.forward.last_seen);
    // Whoever is asked about is where the packets of a flow that begins go, or their answers.
    let (set, hop) = if direction == EGRESS {
        (endpoint.egress, &mut work.forward.back)
    } else {
        (endpoint.ingress, &mut work.forward.hop)
    };
    hop::lead_to(hop, endpoint, seen);
    if set == 0 {
        return 0;
    }
    let other = if direction == EGRESS { question.dst } else { question.src };
    let who = identity_of(question, &other);
    if who == identity::HOST || allows(question, set, who) {
        return 0;
    }
    let reason = if direction == EGRESS { Drop::PolicyEgress } else { Drop::PolicyIngress };
    if endpoint.flags & AUDIT == 0 {
        return -(reason as i32);
    }
    count(Path::Audited, 0);
    let place = Place { hook: 0, ifindex: 0, length: 0, set, rule: question.rule };
    event::audited(place, reason as u32, &work.packet.key);
    0
}

/// The identity of an address.
#[inline(always)]
fn identity_of(question: &mut Question, address: &Addr16) -> u32 {
    if let Some(found) = IDENTITIES.get_ptr(address) {
        // SAFETY: the program runs under RCU: the element's memory stays valid.
        return unsafe { *found };
    }
    let words = address.words();
    question.network = [ADDRESS, words[0], words[1], words[2], words[3]];
    // SAFETY: the words are laid out as the key is, and a key may lie anywhere.
    let key = unsafe { &*question.network.as_ptr().cast::<Key<Addr16>>() };
    match CIDRS.get(key) {
        Some(found) => *found,
        None => identity::WORLD,
    }
}

/// Whether the set lets the identity pass, and by which rule.
#[inline(always)]
fn allows(question: &mut Question, set: u32, who: u32) -> bool {
    question.set = set;
    question.rule = 0;
    match row(question, set, who).or_else(|| row(question, set, identity::ANYBODY)) {
        Some((action, rule)) => {
            question.rule = rule;
            action == action::ALLOW
        }
        None => false,
    }
}

#[inline(always)]
fn row(question: &mut Question, set: u32, who: u32) -> Option<(u32, u32)> {
    let last = u32::from_ne_bytes([question.proto, 0, 0, 0]) | (u32::from(question.port.be) << 16);
    question.row = [abi::policy::bits::PORT, set, who, last];
    // SAFETY: the words are laid out as the key is, and a key may lie anywhere.
    let key = unsafe { &*question.row.as_ptr().cast::<Key<RuleKey>>() };
    let ruling = RULES.get(key)?;
    Some((ruling.action, ruling.rule))
}
