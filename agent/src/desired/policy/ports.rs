//! What a set says about the ports of one identity, as rows of which the longest match counts.

use std::collections::BTreeSet;

use abi::Be16;
use abi::policy::{RuleKey, Ruling, action, bits};

use crate::tables::Protocol;

/// Ports of a protocol, from the first to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The protocol.
    pub protocol: Protocol,
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
}

/// What becomes of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Verdict {
    /// Whether it passes.
    pub allow: bool,
    /// Number of the rule that says so; zero is none in particular.
    pub rule: u32,
}

/// A row of one set and one identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Match {
    /// How many bits count: one of `abi::policy::bits`, or between the last two.
    pub bits: u32,
    /// IP protocol number, zero if it does not count.
    pub proto: u8,
    /// First port of the run.
    pub port: u16,
}

impl Match {
    /// As programs read it.
    pub fn key(self, set: u32, identity: u32) -> RuleKey {
        RuleKey { set, identity, proto: self.proto, zero: 0, port: Be16::new(self.port) }
    }
}

impl Verdict {
    /// As programs read it.
    pub fn ruling(self) -> Ruling {
        Ruling { action: if self.allow { action::ALLOW } else { action::DENY }, rule: self.rule }
    }
}

/// The rows of whom everything is denied.
pub fn nothing() -> Vec<(Match, Verdict)> {
    rows(&[], |_| Some(Verdict { allow: false, rule: 0 }))
}

/// The rows for what `decide` says: of every protocol without ports, and of all ports between the borders of `spans`. Where it
/// says nothing there is no row.
pub fn rows(
    spans: &[Span],
    decide: impl Fn(Option<(Protocol, u16)>) -> Option<Verdict>,
) -> Vec<(Match, Verdict)> {
    let base = decide(None);
    let mut rows: Vec<_> = base
        .map(|verdict| (Match { bits: bits::IDENTITY, proto: 0, port: 0 }, verdict))
        .into_iter()
        .collect();
    let protocols: BTreeSet<Protocol> = spans.iter().map(|span| span.protocol).collect();
    for protocol in protocols {
        let runs = runs(protocol, spans, &decide);
        let mut fallback = base.map(word);
        let whole = runs.iter().all(|(_, verdict)| verdict.is_some());
        if let Some((_, Some(most))) =
            runs.iter().max_by_key(|((first, last), _)| last - first).filter(|_| whole)
            && fallback != Some(word(*most))
        {
            rows.push((Match { bits: bits::PROTOCOL, proto: protocol.number(), port: 0 }, *most));
            fallback = Some(word(*most));
        }
        for ((first, last), verdict) in runs {
            let Some(verdict) = verdict.filter(|verdict| fallback != Some(word(*verdict))) else { continue };
            let row =
                |(port, length)| Match { bits: bits::PROTOCOL + length, proto: protocol.number(), port };
            rows.extend(prefixes(first, last).map(|prefix| (row(prefix), verdict)));
        }
    }
    rows
}

/// What rows have to tell apart: who is denied, and by which rule; nobody asks by which one is allowed.
fn word(verdict: Verdict) -> Option<u32> {
    (!verdict.allow).then_some(verdict.rule)
}

/// All ports of a protocol in runs that have one verdict.
fn runs(
    protocol: Protocol,
    spans: &[Span],
    decide: impl Fn(Option<(Protocol, u16)>) -> Option<Verdict>,
) -> Vec<((u16, u16), Option<Verdict>)> {
    let own = spans.iter().filter(|span| span.protocol == protocol);
    let ends = own.flat_map(|span| [Some(span.first), span.last.checked_add(1)]);
    let borders: BTreeSet<u16> = ends.flatten().chain([0]).collect();
    let mut runs: Vec<((u16, u16), Option<Verdict>)> = Vec::new();
    let lasts = borders.iter().skip(1).map(|next| next - 1).chain([u16::MAX]);
    for (first, last) in borders.iter().zip(lasts) {
        let verdict = decide(Some((protocol, *first)));
        match runs.last_mut() {
            Some(((_, end), same)) if *same == verdict => *end = last,
            _ => runs.push(((*first, last), verdict)),
        }
    }
    runs
}

/// A run of ports as prefixes: the first port of each, and how many bits of it count.
fn prefixes(first: u16, last: u16) -> impl Iterator<Item = (u16, u32)> {
    let (mut at, end) = (u32::from(first), u32::from(last) + 1);
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let aligned = at.trailing_zeros().min(16);
        let fits = (end - at).ilog2();
        let size = aligned.min(fits);
        let prefix = (at as u16, 16 - size);
        at += 1 << size;
        Some(prefix)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALLOW: Verdict = Verdict { allow: true, rule: 7 };
    const DENY: Verdict = Verdict { allow: false, rule: 8 };

    fn tcp(first: u16, last: u16) -> Span {
        Span { protocol: Protocol::Tcp, first, last }
    }

    fn has(span: Span, asked: Option<(Protocol, u16)>) -> bool {
        asked.is_some_and(|(protocol, port)| {
            protocol == span.protocol && (span.first..=span.last).contains(&port)
        })
    }

    /// The longest match, as programs find it.
    fn found(rows: &[(Match, Verdict)], proto: u8, port: u16) -> Option<Verdict> {
        rows.iter()
            .filter(|(row, _)| row.fits(proto, port))
            .max_by_key(|(row, _)| row.bits)
            .map(|(_, verdict)| *verdict)
    }

    #[test]
    fn whole_protocols_and_single_ports_are_one_row() {
        let all = rows(&[tcp(0, u16::MAX)], |asked| asked.map(|_| ALLOW));
        assert_eq!(all, [(Match { bits: bits::PROTOCOL, proto: 6, port: 0 }, ALLOW)]);
        let one = rows(&[tcp(80, 80)], |asked| has(tcp(80, 80), asked).then_some(ALLOW));
        assert_eq!(one, [(Match { bits: bits::PORT, proto: 6, port: 80 }, ALLOW)]);
        let but = rows(&[tcp(80, 80)], |asked| Some(if has(tcp(80, 80), asked) { DENY } else { ALLOW }));
        let base = (Match { bits: bits::IDENTITY, proto: 0, port: 0 }, ALLOW);
        assert_eq!(but, [base, (Match { bits: bits::PORT, proto: 6, port: 80 }, DENY)]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_longest_match_is_the_first_that_fits(
            list in prop::collection::vec((0..4_u16, any::<u16>(), any::<u16>(), any::<bool>(), any::<bool>()), 0..6),
            asked in prop::collection::vec(any::<u16>(), 8),
        ) {
            let entries: Vec<(Option<Span>, Verdict)> = (1..).zip(list).map(|(rule, (kind, a, b, low, allow))| {
                let (a, b) = if low { (a % 100, b % 100) } else { (a, b) };
                let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp][usize::from(kind.min(2))];
                let span = Span { protocol, first: a.min(b), last: a.max(b) };
                ((kind < 3).then_some(span), Verdict { allow, rule })
            }).collect();
            let decide = |asked: Option<(Protocol, u16)>| {
                entries.iter().find(|(span, _)| span.is_none_or(|span| has(span, asked))).map(|(_, verdict)| *verdict)
            };
            let spans: Vec<Span> = entries.iter().filter_map(|(span, _)| *span).collect();
            let rows = rows(&spans, decide);
            let keys: BTreeSet<Match> = rows.iter().map(|(row, _)| *row).collect();
            prop_assert_eq!(keys.len(), rows.len(), "a row is there once");
            let ends = spans.iter().flat_map(|span| [span.first, span.last, span.first.wrapping_sub(1), span.last.wrapping_add(1)]);
            for port in asked.into_iter().chain(ends).chain([0, u16::MAX]) {
                for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
                    let got = found(&rows, protocol.number(), port);
                    let want = decide(Some((protocol, port)));
                    prop_assert_eq!(got.map(|verdict| verdict.allow), want.map(|verdict| verdict.allow));
                    if want.is_some_and(|verdict| !verdict.allow) {
                        prop_assert_eq!(got, want, "who is denied hears by which rule");
                    }
                }
            }
            prop_assert_eq!(found(&rows, 1, 0), decide(None), "a protocol without ports");
        }
    }
}
