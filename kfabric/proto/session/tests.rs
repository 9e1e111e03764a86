// SPDX-License-Identifier: GPL-2.0

use super::past::Past;
use super::*;

const MS: u64 = 1_000_000;

fn settings(name: &[u8], peer: &[u8]) -> Settings {
    Settings {
        name: Name::new(name).unwrap(),
        peer: Name::new(peer).unwrap(),
        limits: Limits {
            frame: 4096,
            eager: 1024,
            message: 1 << 30,
            ops: 16,
            contexts: 1,
        },
        caps: CAP_CRC,
        ping: 100 * MS,
        dead: 300 * MS,
        dial: 50 * MS,
        resume: 1000 * MS,
        backoff: (10 * MS, 80 * MS),
        acks: acks::Policy {
            frames: 8,
            bytes: 1 << 16,
            delay: MS,
            answer: 3 * MS,
        },
    }
}

/// The side with the smaller name, and the other.
fn pair() -> (Session, Session) {
    let a = Session::new(settings(b"a", b"b"), Past::new(100));
    let b = Session::new(settings(b"b", b"a"), Past::new(200));
    (a, b)
}

/// Begins to dial.
fn dial(session: &mut Session, now: u64) -> LinkId {
    session.want(now);
    assert_eq!(session.handle_timeout(now, None), None);
    let id = session.take_dial().expect("a dial");
    assert_eq!(session.state(), State::Dialing);
    id
}

/// Sends the hello of a link that is made.
fn greet(session: &mut Session, id: LinkId) -> Hello {
    session.link_up(id);
    assert_eq!(session.state(), State::Greeting);
    session.take_hello().expect("a hello")
}

fn taken(accept: Result<Accept, Violation>) -> (LinkId, Met) {
    match accept {
        Ok(Accept::Take(id, met)) => (id, met),
        other => panic!("{other:?}"),
    }
}

/// `a` dials `b`. The links at both.
fn connect(a: &mut Session, b: &mut Session, now: u64) -> ((LinkId, Met), (LinkId, Met)) {
    let id = dial(a, now);
    let hello = greet(a, id);
    let at_b = taken(b.accept(now, &hello));
    let answer = b.take_hello().unwrap();
    let met = a.greeted(now, id, &answer).unwrap();
    assert!(a.is_open() && b.is_open());
    // Grants come over it, and nothing waits.
    (a.progress(), b.progress());
    ((id, met), at_b)
}

const FRESH: Met = Met {
    fresh: true,
    ended: false,
    last: 0,
};

#[test]
fn first_link_begins_a_session() {
    let (mut a, mut b) = pair();
    assert_eq!(a.state(), State::Idle);
    assert_eq!((a.deadline(None), a.limits()), (None, None));
    let (at_a, at_b) = connect(&mut a, &mut b, 5);
    assert_eq!((at_a.1, at_b.1), (FRESH, FRESH));
    assert!(a.has_crc() && b.has_crc());
    assert_eq!(a.limits(), Some(b.settings().limits));
    assert_eq!(a.take_abandoned(), None);
}

#[test]
fn lost_link_resumes_at_what_was_executed() {
    let (mut a, mut b) = pair();
    let ((id, _), (at_b, _)) = connect(&mut a, &mut b, 5);
    for _ in 0..3 {
        b.execute(6, 10, false);
    }
    a.execute(6, 10, false);
    assert!(a.link_lost(7, id) && b.link_lost(7, at_b));
    assert_eq!((a.state(), b.state()), (State::Lost, State::Lost));
    let (at_a, at_b) = connect(&mut b, &mut a, 7 + 10 * MS);
    let met = |last| Met {
        fresh: false,
        ended: false,
        last,
    };
    assert_eq!((at_b.1, at_a.1), (met(3), met(1)));
    // Acknowledgements may have been lost with the link.
    assert!(a.acks().are_due(0) && b.acks().are_due(0));
}

#[test]
fn peer_that_never_got_our_hello_resumes_from_the_beginning() {
    let (mut a, mut b) = pair();
    let id = dial(&mut a, 0);
    let hello = greet(&mut a, id);
    taken(b.accept(0, &hello));
    b.take_hello().unwrap(); // and the link is lost under it
    assert!(a.link_lost(1, id));
    let (at_a, at_b) = connect(&mut a, &mut b, 10 * MS + 1);
    assert_eq!(at_a.1, FRESH);
    assert!(!at_b.1.fresh && at_b.1.last == 0);
}

#[test]
fn peer_that_got_our_hello_but_no_answer_through_resumes_from_the_beginning() {
    let (mut a, mut b) = pair();
    let id = dial(&mut a, 0);
    let hello = greet(&mut a, id);
    let (at_b, _) = taken(b.accept(0, &hello));
    b.take_hello().unwrap(); // is lost with the link
    a.link_lost(1, id);
    b.link_lost(1, at_b);
    let (at_b, at_a) = connect(&mut b, &mut a, 10 * MS + 1);
    assert_eq!(at_a.1, FRESH);
    assert!(!at_b.1.fresh && at_b.1.last == 0);
}

#[test]
fn restarted_peer_ends_the_session() {
    let (mut a, mut b) = pair();
    connect(&mut a, &mut b, 0);
    a.execute(0, 0, false);
    let mut b = Session::new(settings(b"b", b"a"), Past::new(999));
    // It dials, though a believes that its own link is open.
    let (at_b, at_a) = connect(&mut b, &mut a, 5);
    assert_eq!(at_b.1, FRESH);
    assert!(at_a.1.fresh && at_a.1.ended);
    assert_eq!(a.executed(), 0);
    assert!(a.take_abandoned().is_some());
}

#[test]
fn session_that_one_side_gave_up_is_not_resumed() {
    let (mut a, mut b) = pair();
    let ((id, _), (at_b, _)) = connect(&mut a, &mut b, 0);
    b.execute(0, 0, false);
    assert!(a.link_lost(1, id) && b.link_lost(900 * MS, at_b));
    let at = 1 + 1000 * MS;
    assert_eq!(a.handle_timeout(at - 1, None), None); // dials, in vain
    let end = a.handle_timeout(at, None).expect("the end");
    assert_eq!(end, End::Timeout { never: false });
    a.end(at, end);
    assert_eq!(a.state(), State::Closed(end));
    a.reopen(at);
    let (at_a, at_b) = connect(&mut a, &mut b, at);
    assert_eq!(at_a.1, FRESH);
    assert!(at_b.1.fresh && at_b.1.ended);
    assert_eq!(b.executed(), 0);
}

#[test]
fn hello_of_an_incarnation_before_is_refused() {
    let (mut a, mut b) = pair();
    connect(&mut a, &mut b, 0);
    // What the old b says over a link that is late.
    b.abandon(1);
    let id = dial(&mut b, 1 + 10 * MS);
    let late = greet(&mut b, id);
    let mut b = Session::new(settings(b"b", b"a"), Past::new(999));
    connect(&mut b, &mut a, 2);
    assert_eq!(a.accept(3, &late), Ok(Accept::Refuse(None)));
    assert!(a.is_open());
}

#[test]
fn link_of_the_smaller_name_stays_when_both_dial() {
    let (mut a, mut b) = pair();
    let (id_a, id_b) = (dial(&mut a, 0), dial(&mut b, 0));
    let (hello_a, hello_b) = (greet(&mut a, id_a), greet(&mut b, id_b));
    assert_eq!(a.accept(0, &hello_b), Ok(Accept::Refuse(None)));
    taken(b.accept(0, &hello_a));
    assert_eq!(b.take_abandoned(), Some(id_b));
    let answer = b.take_hello().unwrap();
    a.greeted(0, id_a, &answer).unwrap();
    assert!(a.is_open() && b.is_open());
    assert!(
        !b.link_lost(1, id_b),
        "the link that was closed is not the one in use"
    );
}

#[test]
fn dial_that_comes_late_is_refused() {
    // Whatever the larger side knew of earlier links.
    for earlier in 0..3 {
        let (mut a, mut b) = pair();
        for nth in 0..earlier {
            let now = 20 * MS * nth;
            let ((id, _), (at_b, _)) = connect(&mut b, &mut a, now);
            b.link_lost(now, id);
            a.link_lost(now, at_b);
        }
        let now = 90 * MS;
        let id_b = dial(&mut b, now);
        let late = greet(&mut b, id_b);
        connect(&mut a, &mut b, now);
        assert_eq!(a.accept(now, &late), Ok(Accept::Refuse(None)), "{earlier}");
        // But one that the peer made since then is taken: it has lost ours.
        b.abandon(now);
        let id_b = dial(&mut b, now + 80 * MS);
        let hello = greet(&mut b, id_b);
        taken(a.accept(now, &hello));
    }
}

#[test]
fn peer_that_dials_again_has_abandoned_its_link() {
    let (mut a, mut b) = pair();
    let id = dial(&mut b, 0);
    let hello = greet(&mut b, id);
    let (first, _) = taken(a.accept(0, &hello));
    a.take_hello().unwrap();
    // The answer is lost, so b says the same generation again.
    b.link_lost(0, id);
    let (_, (second, met)) = connect(&mut b, &mut a, 10 * MS);
    assert!(first != second && !met.fresh);
    assert_eq!(a.take_abandoned(), Some(first));
}

#[test]
fn silence_is_asked_about_and_then_ends_the_link() {
    let (mut a, mut b) = pair();
    let ((id, _), _) = connect(&mut a, &mut b, 0);
    assert_eq!(a.deadline(None), Some(100 * MS));
    a.handle_timeout(100 * MS - 1, None);
    assert!(!a.take_ping());
    a.handle_timeout(100 * MS, None);
    assert!(a.take_ping() && !a.take_ping());
    assert_eq!(a.deadline(None), Some(200 * MS));
    a.hear(150 * MS);
    assert_eq!(a.deadline(None), Some(250 * MS));
    a.handle_timeout(450 * MS - 1, None);
    assert!(a.is_open());
    a.handle_timeout(450 * MS, None);
    assert_eq!(a.take_abandoned(), Some(id));
    assert_eq!(a.state(), State::Lost);
}

#[test]
fn frames_that_nobody_acknowledges_are_asked_about() {
    let (mut a, mut b) = pair();
    connect(&mut a, &mut b, 0);
    a.hear(90 * MS);
    assert_eq!(a.deadline(Some(10 * MS)), Some(110 * MS));
    a.handle_timeout(110 * MS, Some(10 * MS));
    assert!(a.take_ping());
}

#[test]
fn lost_tail_is_noticed() {
    let (mut a, mut b) = pair();
    connect(&mut a, &mut b, 0);
    b.execute(0, 0, false);
    assert_eq!(b.has(1), Ok(()));
    assert_eq!(b.has(0), Ok(()));
    assert_eq!(b.has(2), Err(Violation::Gap));
    b.pinged();
    assert!(b.take_pong() && !b.take_pong());
}

#[test]
fn frame_is_next_or_duplicate_or_too_far() {
    for start in [0, u32::MAX - 1, u32::MAX] {
        let mut session = pair().0;
        session.start_at(start);
        for _ in 0..4 {
            let at = |n: u32| session.executed().wrapping_add(n);
            assert_eq!(session.is_next(at(1)), Ok(true));
            assert_eq!(session.is_next(at(0)), Ok(false));
            assert_eq!(session.is_next(at(u32::MAX)), Ok(false));
            assert_eq!(session.is_next(at(2)), Err(Violation::Gap));
            session.execute(0, 0, false);
        }
    }
}

#[test]
fn dialing_gives_up_a_link_and_at_last_the_session() {
    let (mut a, _) = pair();
    let first = dial(&mut a, 0);
    a.handle_timeout(50 * MS - 1, None);
    assert_eq!(a.state(), State::Dialing);
    let mut now = 50 * MS;
    assert_eq!(a.handle_timeout(now, None), None);
    assert_eq!(a.take_abandoned(), Some(first));
    // Waits get longer, up to a bound.
    let mut waits = Vec::new();
    let end = loop {
        let at = a.deadline(None).expect("a deadline");
        waits.push((at - now) / MS);
        now = at;
        if let Some(end) = a.handle_timeout(now, None) {
            break end;
        }
        if let Some(id) = a.take_dial() {
            a.link_lost(now, id);
        }
    };
    assert_eq!(waits[..5], [10, 20, 40, 80, 80]);
    assert_eq!((end, now), (End::Timeout { never: true }, 1000 * MS));
}

#[test]
fn goodbye_is_said_once_and_closes_the_link() {
    let (mut a, mut b) = pair();
    let ((id, _), _) = connect(&mut a, &mut b, 0);
    a.end(1, End::Closed(Reason::Idle));
    assert!(!a.is_open());
    assert_eq!(a.take_abandoned(), None);
    assert_eq!(a.take_bye(1), Some(Reason::Idle));
    assert_eq!(a.take_abandoned(), Some(id));
    assert_eq!((a.take_bye(1), a.deadline(None)), (None, None));
    // Nobody is let in until it begins again.
    let at_b = b.link().unwrap();
    b.end(1, End::Bye(Reason::Idle));
    assert_eq!(b.take_abandoned(), Some(at_b));
    b.reopen(2);
    let id = dial(&mut b, 2);
    let hello = greet(&mut b, id);
    let refused = a.accept(2, &hello);
    assert_eq!(refused, Ok(Accept::Refuse(Some(Reason::Idle))));
    a.reopen(3);
    taken(a.accept(3, &hello));
}

#[test]
fn answer_of_somebody_else_is_no_answer() {
    let (mut a, mut b) = pair();
    let id = dial(&mut a, 0);
    let hello = greet(&mut a, id);
    taken(b.accept(0, &hello));
    let answer = b.take_hello().unwrap();
    let table: [fn(&mut Hello); 5] = [
        |h| h.from = Name::new(b"c").unwrap(),
        |h| h.to = Name::new(b"c").unwrap(),
        |h| h.versions = (4, 4),
        |h| h.versions = (2, 2),
        |h| h.generation = 0,
    ];
    for (at, change) in table.into_iter().enumerate() {
        let mut wrong = answer;
        change(&mut wrong);
        let found = a.greeted(0, id, &wrong);
        assert_eq!(found, Err(Violation::Unexpected), "row {at}");
    }
    assert_eq!(
        a.greeted(0, LinkId(77), &answer),
        Err(Violation::Unexpected)
    );
    a.greeted(0, id, &answer).unwrap();
    assert_eq!(a.greeted(0, id, &answer), Err(Violation::Unexpected));
}

#[test]
fn session_does_not_resume_with_other_limits() {
    let (mut a, mut b) = pair();
    connect(&mut a, &mut b, 0);
    b.abandon(1);
    let id = dial(&mut b, 1 + 10 * MS);
    let mut hello = greet(&mut b, id);
    hello.limits.ops = 17;
    assert_eq!(a.accept(2, &hello), Err(Violation::Limits));
}

#[test]
fn hello_of_an_incarnation_before_is_refused_though_its_session_was_forgotten() {
    let (mut a, mut b) = pair();
    let ((_, _), (at_b, _)) = connect(&mut a, &mut b, 0);
    b.link_lost(1, at_b);
    let id = dial(&mut b, 1 + 10 * MS);
    let late = greet(&mut b, id);
    a.end(2, End::Timeout { never: false });
    let mut b = Session::new(settings(b"b", b"a"), Past::new(999));
    a.reopen(2);
    connect(&mut b, &mut a, 2);
    assert_eq!(a.accept(3, &late), Ok(Accept::Refuse(None)));
    assert!(a.is_open());
}

#[test]
fn hello_of_an_incarnation_that_was_given_up_before_it_came_is_refused() {
    let (mut a, mut b) = pair();
    for nth in 1..=3 {
        let id = dial(&mut b, 0);
        let late = greet(&mut b, id);
        b.end(0, End::Timeout { never: true });
        b.reopen(0);
        let (_, (at_a, met)) = connect(&mut b, &mut a, 0);
        assert_eq!((met.fresh, met.ended), (true, nth > 1));
        assert_eq!(a.accept(1, &late), Ok(Accept::Refuse(None)), "{nth}");
        assert!(a.is_open());
        a.link_lost(1, at_a);
        b.end(1, End::Timeout { never: false });
        b.reopen(1);
    }
    // Another endpoint of that name has one of its own.
    let mut b = Session::new(settings(b"b", b"a"), Past::new(u64::MAX / 2));
    connect(&mut b, &mut a, 2);
}

#[test]
fn older_of_two_dials_is_refused_when_it_comes_last() {
    // Whether the link that came first is there when it does.
    for lost in [false, true] {
        let (mut a, mut b) = pair();
        let id = dial(&mut b, 0);
        let late = greet(&mut b, id);
        b.link_lost(0, id);
        let (_, (at_a, _)) = connect(&mut b, &mut a, 10 * MS);
        if lost {
            a.link_lost(11 * MS, at_a);
        }
        let found = a.accept(12 * MS, &late);
        assert_eq!(found, Ok(Accept::Refuse(None)), "{lost}");
        assert_eq!(a.is_open(), !lost);
    }
}

#[test]
fn both_links_that_are_given_up_are_told() {
    let (mut a, mut b) = pair();
    let (_, (first, _)) = connect(&mut b, &mut a, 0);
    b.abandon(1);
    let id = dial(&mut b, 1 + 10 * MS);
    let hello = greet(&mut b, id);
    let (second, _) = taken(a.accept(2, &hello));
    a.abandon(2);
    assert_eq!(a.take_abandoned(), Some(first));
    assert_eq!(a.take_abandoned(), Some(second));
    assert_eq!(a.take_abandoned(), None);
}

#[test]
fn link_that_only_opens_is_no_progress() {
    for progress in [false, true] {
        let (mut a, mut b) = pair();
        let (mut now, mut dials) = (0, 0);
        let end = loop {
            if now > 3000 * MS {
                break None;
            }
            a.want(now);
            if let Some(end) = a.handle_timeout(now, Some(0)) {
                break Some((end, now));
            }
            if let Some(id) = a.take_dial() {
                let hello = greet(&mut a, id);
                taken(b.accept(now, &hello));
                let answer = b.take_hello().unwrap();
                a.greeted(now, id, &answer).unwrap();
                if progress {
                    a.progress();
                }
                b.abandon(now);
                b.take_abandoned();
                a.link_lost(now, id);
                dials += 1;
            }
            now += MS;
        };
        if progress {
            assert_eq!((end, dials > 200), (None, true), "{dials}");
        } else {
            let timeout = End::Timeout { never: false };
            assert_eq!(
                (end, dials < 20),
                (Some((timeout, 1000 * MS)), true),
                "{dials}"
            );
        }
    }
}

#[test]
fn open_link_has_no_deadline_but_its_own() {
    let (mut a, mut b) = pair();
    connect(&mut a, &mut b, 0);
    a.hear(2000 * MS);
    assert_eq!(a.deadline(None), Some(2100 * MS));
    assert_eq!(a.handle_timeout(2000 * MS, None), None);
}

/// A session that has ended since nobody used it: with its peer, and a dial of that which is late.
fn rested() -> (Session, Session, Hello) {
    let (mut a, mut b) = pair();
    // The link of the smaller name stays, and what the larger has said there is late.
    let id = dial(&mut b, 0);
    let late = greet(&mut b, id);
    connect(&mut a, &mut b, 0);
    for session in [&mut a, &mut b] {
        session.end(1, End::Idle);
    }
    assert_eq!(b.take_bye(1), Some(Reason::Idle));
    a.abandon(1);
    (a, b, late)
}

#[test]
fn dial_that_is_late_begins_no_session_after_the_end_of_its_own() {
    let (mut a, mut b, late) = rested();
    assert_eq!(a.accept(2, &late), Ok(Accept::Refuse(None)));
    b.reopen(2);
    let (at_b, at_a) = connect(&mut b, &mut a, 2);
    assert_eq!((at_b.1, at_a.1), (FRESH, FRESH));
    assert_eq!(a.accept(3, &late), Ok(Accept::Refuse(None)));
}

#[test]
fn what_is_remembered_stands_for_the_session() {
    let (a, b, late) = rested();
    let mut forgotten = Session::new(*a.settings(), *a.past());
    assert!(a.past().is_known() && !Past::new(1).is_known());
    assert_eq!(forgotten.accept(2, &late), Ok(Accept::Refuse(None)));
    // Without it, it would be taken for a new one.
    let mut other = Session::new(*a.settings(), Past::new(77));
    taken(other.accept(2, &late));
    // Both have forgotten, and go on under incarnations that they never had.
    let before = [a.past(), b.past()].map(|past| past.incarnation());
    let mut peer = Session::new(*b.settings(), *b.past());
    let (at_a, at_b) = connect(&mut forgotten, &mut peer, 2);
    assert_eq!((at_a.1, at_b.1), (FRESH, FRESH));
    assert_eq!(before, [101, 201]);
}

#[test]
fn peer_that_has_not_heard_of_the_end_comes_again() {
    let (mut a, mut b) = pair();
    let ((id, _), _) = connect(&mut b, &mut a, 0);
    a.end(1, End::Idle);
    // The goodbye is lost with the link.
    a.abandon(1);
    b.link_lost(1, id);
    let (at_b, at_a) = connect(&mut b, &mut a, 1 + 10 * MS);
    assert_eq!(at_a.1, FRESH);
    assert!(at_b.1.fresh && at_b.1.ended);
}

#[test]
fn session_that_the_peer_has_begun_is_not_lost_with_the_one_before() {
    let (mut a, mut b) = pair();
    let ((id, _), _) = connect(&mut b, &mut a, 0);
    a.end(1, End::Idle);
    a.abandon(1);
    b.link_lost(1, id);
    // A begins another with what B says, and its answer is lost.
    let id = dial(&mut b, 11 * MS);
    let hello = greet(&mut b, id);
    let (at_a, met) = taken(a.accept(11 * MS, &hello));
    assert_eq!(met, FRESH);
    assert!(a.take_hello().is_some());
    assert!(a.link_lost(12 * MS, at_a) && b.link_lost(12 * MS, id));
    // So B learns that the session before is over, and that this one goes on.
    let (at_a, at_b) = connect(&mut a, &mut b, 25 * MS);
    assert!(at_b.1.fresh && at_b.1.ended);
    assert_eq!((at_a.1.fresh, at_a.1.ended), (false, false));
}
