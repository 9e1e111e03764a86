// SPDX-License-Identifier: GPL-2.0

use super::super::testing;
use super::*;

/// Everything a link may do, but restarts.
const ROUGH: Scenario = Scenario {
    name: "rough",
    gap: 2_000,
    twice: 5_000,
    swap: 2_000,
    corrupt: 2_000,
    cut: 2_000,
    disconnect: 5 * MS,
    half_open: 8,
    ..Scenario::CALM
};

const LOSSY: Scenario = Scenario {
    name: "lossy",
    disconnect: 2 * MS,
    cut: 5_000,
    crc: false,
    ..Scenario::CALM
};

const WRAP: Scenario = Scenario {
    name: "wrap",
    start: u32::MAX - 500,
    ..ROUGH
};

const STRICT: Scenario = Scenario {
    name: "strict",
    order: Order::STRICT,
    ..ROUGH
};

/// Little room for anything, and one side that begins.
const NARROW: Scenario = Scenario {
    name: "narrow",
    frame: 512,
    eager: 64,
    ops: 16,
    ring: 2,
    window: Amount::new(1, 64),
    both_dial: false,
    ..ROUGH
};

/// Links take long to be made, so that both sides' dials meet and pass each other.
const SLOW: Scenario = Scenario {
    name: "slow",
    pairs: 16,
    quota: 250,
    latency: MS,
    disconnect: 40 * MS,
    resume: 5_000 * MS,
    ..LOSSY
};

const RESTARTS: Scenario = Scenario {
    name: "restarts",
    restart: 20 * MS,
    limit: 20_000 * MS,
    resume: 30 * MS,
    ..ROUGH
};

/// Sides say goodbye amid everything, and tell each other what was done.
const CLOSES: Scenario = Scenario {
    name: "closes",
    close: 10 * MS,
    disconnect: 20 * MS,
    ..Scenario::CALM
};

/// Sessions end that nobody uses just then, and begin again, while links are lost or not.
const IDLES: Scenario = Scenario {
    name: "idles",
    pairs: 8,
    quota: 500,
    depth: 2,
    pause: 4 * MS,
    rest: MS,
    latency: 100 * US,
    ..Scenario::CALM
};

const LOST_IDLES: Scenario = Scenario {
    name: "lost idles",
    disconnect: 6 * MS,
    half_open: 8,
    ..IDLES
};

/// Nothing is withdrawn, so that nothing that is stuck is freed by that.
const PATIENT: Scenario = Scenario {
    name: "patient",
    cancel: 0,
    ..NARROW
};

/// Pieces are refused while others are on the way, and links are lost under them.
const PIECES: Scenario = Scenario {
    name: "pieces",
    pairs: 2,
    quota: 500,
    frame: 512,
    eager: 64,
    disconnect: 300 * US,
    half_open: 0,
    cancel: 0,
    ..ROUGH
};

/// Long payloads come so slowly that a link would be dead before one is there.
const TRICKLE: Scenario = Scenario {
    name: "trickle",
    pairs: 8,
    quota: 40,
    slow: 400,
    limit: 20_000 * MS,
    ..Scenario::CALM
};

const THOUSANDS: Scenario = Scenario {
    name: "thousands",
    pairs: 2000,
    quota: 20,
    ops: 16,
    depth: 8,
    disconnect: 10 * MS,
    half_open: 8,
    ..Scenario::CALM
};

/// Each kind of world, and how many of it.
const WORLDS: [(Scenario, u64); 14] = [
    (Scenario::CALM, 20),
    (LOSSY, 20),
    (ROUGH, 45),
    (WRAP, 8),
    (STRICT, 8),
    (NARROW, 8),
    (SLOW, 8),
    (RESTARTS, 10),
    (PATIENT, 8),
    (PIECES, 30),
    (TRICKLE, 2),
    (CLOSES, 20),
    (IDLES, 8),
    (LOST_IDLES, 8),
];

fn ops(scenario: &Scenario) -> u64 {
    2 * scenario.pairs as u64 * scenario.quota
}

#[test]
fn all_worlds_have_a_million_operations() {
    let all: u64 = WORLDS.iter().map(|(world, count)| count * ops(world)).sum();
    assert!(all + ops(&THOUSANDS) >= 1_000_000, "{all}");
}

/// Runs worlds of new seeds; the seed of those that fail is printed.
fn run(scenario: &Scenario, count: u64) -> Seen {
    let mut seeds = testing::rng();
    let mut all = Seen::default();
    for _ in 0..count {
        let seen = World::new(scenario, seeds.next_u64()).run();
        all.ops += seen.ops;
        all.frames += seen.frames;
        all.lost += seen.lost;
        all.violations += seen.violations;
        all.rested += seen.rested;
        all.forgotten += seen.forgotten;
        all.time += seen.time;
    }
    println!("{}: {all:?}", scenario.name);
    assert_eq!(all.ops, count * ops(scenario));
    all
}

fn run_all(nth: usize) -> Seen {
    let (scenario, count) = &WORLDS[nth];
    run(scenario, *count)
}

#[test]
fn calm_world_has_no_faults() {
    let seen = run_all(0);
    assert_eq!((seen.lost, seen.violations), (0, 0));
    // Replies are saved: most operations cost a frame and a share of an acknowledgement.
    assert!(seen.frames < 3 * seen.ops, "{seen:?}");
}

#[test]
fn links_that_are_lost_cost_nothing_but_time() {
    let seen = run_all(1);
    assert!(seen.lost > 500, "{seen:?}");
}

#[test]
fn links_do_their_worst() {
    let seen = run_all(2);
    assert!(seen.violations > 1000 && seen.lost > 500, "{seen:?}");
}

#[test]
fn sequences_wrap_around_under_loss() {
    run_all(3);
}

#[test]
fn orders_are_kept_under_loss() {
    run_all(4);
}

#[test]
fn narrow_windows_and_rings_do_not_stop_the_world() {
    run_all(5);
}

#[test]
fn dials_that_meet_and_pass_each_other_are_settled() {
    let seen = run_all(6);
    assert!(seen.lost > 100, "{seen:?}");
}

#[test]
fn restarts_end_what_was_in_flight_and_nothing_else() {
    let seen = run_all(7);
    assert!(seen.lost > 200, "{seen:?}");
}

#[test]
fn nothing_is_stuck_if_nothing_is_withdrawn() {
    run_all(8);
}

#[test]
fn pieces_are_refused_while_links_are_lost() {
    run_all(9);
}

#[test]
fn slow_payloads_come_through_while_the_link_is_not_silent() {
    let seen = run_all(10);
    assert_eq!((seen.lost, seen.violations), (0, 0));
}

#[test]
fn goodbyes_tell_what_was_done() {
    let seen = run_all(11);
    // No more is lost of a goodbye than its link: a checksum that is not there would be a fault.
    assert_eq!(seen.violations, 0, "{seen:?}");
}

#[test]
fn sessions_that_end_for_being_idle_lose_nothing() {
    let seen = run_all(12);
    assert_eq!((seen.lost, seen.violations), (0, 0));
    // Each is seen by both sides.
    assert!(seen.rested > 2000 && seen.forgotten > 500, "{seen:?}");
}

#[test]
fn sessions_that_end_for_being_idle_lose_nothing_over_links_that_do() {
    let seen = run_all(13);
    assert_eq!(seen.violations, 0, "{seen:?}");
    assert!(seen.rested > 2000 && seen.lost > 500, "{seen:?}");
}

#[test]
fn thousands_of_peers_come_through() {
    run(&THOUSANDS, 1);
}

#[test]
fn equal_seeds_give_equal_worlds() {
    let small = Scenario {
        pairs: 2,
        quota: 200,
        ..RESTARTS
    };
    let seed = testing::rng().next_u64();
    let seen = [(); 2].map(|()| World::new(&small, seed).run());
    assert_eq!(format!("{:?}", seen[0]), format!("{:?}", seen[1]));
}
