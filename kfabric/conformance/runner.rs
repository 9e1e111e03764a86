// SPDX-License-Identifier: GPL-2.0

//! The runner: each case on each provider, and KTAP in the log.

use crate::wishes::domain_of;
use crate::{module_parameters, peer};
use kernel::prelude::*;
use kfabric::prelude::*;

/// How many cases may time out on a provider before the others are not run.
const PATIENCE: usize = 3;

/// What the name of a case ends with that is about connected endpoints as well, when it is.
const ON_A_CONNECTION: &str = "_on_a_connection";

/// And when the peers of its rigs are on another host.
const BETWEEN: &str = "_between_hosts";

/// And when it is run in another network namespace than the initial one.
const APART: &str = "_in_another_namespace";

/// A case.
pub(crate) struct Case {
    /// Its name: a sentence, in snake case.
    pub(crate) name: &'static str,
    /// What the provider must advertise for it.
    pub(crate) needs: Caps,
    /// The endpoints that it is about: their info is what it gets.
    pub(crate) endpoints: EndpointType,
    /// Whether it is about connected endpoints as well.
    pub(crate) connected: bool,
    /// What the provider must keep in order for it.
    pub(crate) order: Order,
    /// Runs it on the provider of an info. `Err`: it failed, and the log says where.
    pub(crate) run: fn(&Info, seed: u64) -> Result,
}

/// Makes `CASES` of functions, each with what it needs: `name: Caps::MSG,`, or with an order
/// `name: Caps::MSG => Order::SAS,`. They are about datagram endpoints, `name [connected]: ...` about
/// connected ones as well; unless `EndpointType::Msg;` goes first.
#[macro_export]
macro_rules! cases {
    ($($run:ident $([$connected:ident])?: $needs:expr $(=> $order:expr)?,)*) => {
        $crate::cases! {
            ::kfabric::prelude::EndpointType::Rdm;
            $($run $([$connected])?: $needs $(=> $order)?,)*
        }
    };
    (@connected) => { false };
    (@connected connected) => { true };
    ($endpoints:expr; $($run:ident $([$connected:ident])?: $needs:expr $(=> $order:expr)?,)*) => {
        pub(crate) const CASES: &[$crate::runner::Case] = &[$($crate::runner::Case {
            name: ::core::stringify!($run),
            needs: $needs,
            endpoints: $endpoints,
            connected: $crate::cases!(@connected $($connected)?),
            order: ::kfabric::prelude::Order::NONE$(.union($order))?,
            run: $run,
        }),*];
    };
}

/// Fails the case, saying where, unless the condition holds.
///
/// In a helper that is `#[track_caller]`, the place is where it was called.
#[macro_export]
macro_rules! check {
    ($condition:expr) => {
        if !$condition {
            let at = ::core::panic::Location::caller();
            ::kernel::prelude::pr_err!(
                "# {}:{}: {}\n",
                at.file(),
                at.line(),
                ::core::stringify!($condition)
            );
            return Err(::kernel::prelude::EINVAL);
        }
    };
}

/// Fails the case, saying where and with what, unless the two are equal.
#[macro_export]
macro_rules! check_eq {
    ($left:expr, $right:expr) => {{
        let (left, right) = (&$left, &$right);
        if *left != *right {
            let at = ::core::panic::Location::caller();
            ::kernel::prelude::pr_err!(
                "# {}:{}: {} is {:?}, not {:?}\n",
                at.file(),
                at.line(),
                ::core::stringify!($left),
                left,
                right
            );
            return Err(::kernel::prelude::EINVAL);
        }
    }};
}

/// The same domain's info, for what a case needs; `None` if that is not to be had.
#[inline(never)]
pub(crate) fn asked_for(
    info: &Info,
    endpoints: EndpointType,
    caps: Caps,
    order: Order,
) -> Option<Info> {
    let hints = Hints {
        caps,
        order,
        endpoint_type: Some(endpoints),
        ..domain_of(info)
    };
    getinfo(&hints).ok()?.first().copied()
}

/// What a domain has, also what it has only if it is asked for.
#[inline(never)]
pub(crate) fn all_caps(info: &Info) -> Caps {
    let fences = asked_for(info, EndpointType::Rdm, Caps::FENCE, Order::NONE);
    fences.map_or(info.caps, |fences| info.caps | fences.caps)
}

/// Runs the cases that the parameters choose, on each provider that is registered. `ENODATA`: there
/// is none.
pub(crate) fn run(cases: &[&[Case]], seed: u64) -> Result {
    let (first, last) = (
        module_parameters::first.value(),
        module_parameters::last.value(),
    );
    let every = module_parameters::every.value().max(1);
    let is_chosen = |number, _: &str, _: &str| {
        (first..=last).contains(&number) && (number - first) % every == 0
    };
    run_chosen(cases, seed, is_chosen).map(|_| ())
}

/// Runs the case of that name, as it stands in a report. `ENOENT`: there is none; `EIO`: it failed.
pub(crate) fn run_named(cases: &[&[Case]], seed: u64, name: &str) -> Result {
    let is_meant = |_, case: &str, how: &str| name.strip_prefix(case) == Some(how);
    match run_chosen(cases, seed, is_meant)? {
        (0, _) => Err(ENOENT),
        (_, 0) => Ok(()),
        _ => Err(EIO),
    }
}

/// Runs those of which `is_chosen` thinks so, by their number, name, and what the name ends with;
/// how many there were, and how many of them failed.
///
/// Where [`PATIENCE`] cases have timed out, the rest fail without being run.
fn run_chosen(
    cases: &[&[Case]],
    seed: u64,
    is_chosen: impl Fn(usize, &str, &str) -> bool,
) -> Result<(usize, usize)> {
    let (net, apart) = match module_parameters::net.value() {
        // Else there would be nothing new to see.
        true if Namespace::current() == Namespace::initial() => return Err(EINVAL),
        true => (Namespace::current(), APART),
        false if peer::tested().is_some() => (Namespace::initial(), BETWEEN),
        false => (Namespace::initial(), ""),
    };
    // One for each domain.
    let infos = getinfo(&Hints {
        endpoint_type: Some(EndpointType::Rdm),
        net: Some(net),
        ..peer::tested().map_or_else(Hints::default, domain_of)
    })?;
    let seed = if seed == 0 { random() } else { seed };
    // Those that are about connected endpoints as well come once more, after all.
    let connected = module_parameters::connected.value();
    let chosen = || {
        let all = cases.iter().copied().flatten();
        let again = all.clone().filter(|case| connected && case.connected);
        let all = all.map(|case| (case, case.endpoints, ""));
        let again = again.map(|case| (case, EndpointType::Msg, ON_A_CONNECTION));
        let numbered = Iterator::chain(all, again).zip(1..);
        let chosen = numbered.filter(|((case, _, how), number)| is_chosen(*number, case.name, how));
        chosen.map(|(case, _)| case)
    };
    let total = chosen().count();
    if total == 0 {
        return Ok((0, 0));
    }
    pr_info!("KTAP version 1\n");
    pr_info!("# seed {seed}\n");
    pr_info!("1..{}\n", total * infos.len());
    let (mut number, mut failed) = (0, 0);
    for info in &infos {
        let mut timeouts = 0;
        let caps = all_caps(info);
        pr_info!("# conformance.{} has {}\n", info.provider, caps);
        for (case, endpoints, how) in chosen() {
            number += 1;
            let (provider, name) = (info.provider, case.name);
            let Some(info) = asked_for(info, endpoints, case.needs, case.order) else {
                pr_info!(
                    "ok {number} conformance.{provider}.{name}{how}{apart} # SKIP needs {:?}, {} and {:?}, has {}\n",
                    endpoints,
                    case.needs,
                    case.order,
                    caps
                );
                continue;
            };
            if timeouts == PATIENCE {
                failed += 1;
                pr_info!(
                    "not ok {number} conformance.{provider}.{name}{how}{apart} # not run: the provider does not answer\n"
                );
                continue;
            }
            match peer::between(|| (case.run)(&info, seed)) {
                Err(EXDEV) if peer::tested().is_some() => pr_info!(
                    "ok {number} conformance.{provider}.{name}{how}{apart} # SKIP needs both ends on one host\n"
                ),
                Ok(()) => pr_info!("ok {number} conformance.{provider}.{name}{how}{apart}\n"),
                Err(error) => {
                    failed += 1;
                    timeouts += usize::from(error == ETIMEDOUT);
                    pr_info!("# {name}{how}{apart}: {error:?}\n");
                    pr_info!("not ok {number} conformance.{provider}.{name}{how}{apart}\n");
                }
            }
        }
    }
    Ok((number, failed))
}
