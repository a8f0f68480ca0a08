use std::time::Duration;

use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;

use super::{Course, Effect, Fault, FaultPlan, Misbehaviour, Op, Stop, Tamper, When, flips};

fn rng(seed: u64) -> ChaCha12Rng {
    ChaCha12Rng::seed_from_u64(seed)
}

#[test]
fn next_strikes_exactly_so_often_and_only_its_operations() {
    let mut plan = FaultPlan::from(Fault::next(Misbehaviour::ErrorBefore, 2).on(&[Op::Put]));
    let mut rng = rng(1);
    assert!(plan.decide(Op::Get, &mut rng).is_empty());
    for _ in 0..2 {
        assert_eq!(plan.decide(Op::Put, &mut rng), [Effect::Before(Stop::Error)]);
    }
    assert!(plan.decide(Op::Put, &mut rng).is_empty());
}

#[test]
fn chance_is_about_right_and_one_seed_gives_one_sequence() {
    let run = |seed| {
        let mut plan = FaultPlan::from(Fault::chance(Misbehaviour::Swap, 0.25));
        let mut rng = rng(seed);
        (0..4000).map(|_| plan.decide(Op::Get, &mut rng)).collect::<Vec<_>>()
    };
    let struck = run(7).iter().filter(|effects| !effects.is_empty()).count();
    assert!((800..1200).contains(&struck), "{struck}");
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

#[test]
fn plans_survive_their_text_form() {
    let text = "latency 20000us 5000us on put,get\nbandwidth 1000000\nerror-before next 3\nerror-after chance 0.25\n\
                reset\nfreeze\nfreeze-mid-body\ndrip 10 1000us\ntruncate\nflip 3 on get,head chance 0.5\nswap\n\
                roll-back\nstale-list 4\ndropped-write\nendless-body\ndown\nfull\ndenied\nno-bucket\nland-late 3000000us\n";
    let plan: FaultPlan = text.parse().unwrap();
    assert_eq!(plan.faults().len(), 20);
    assert_eq!(plan.to_string(), text);
    assert!(plan.is_down());
    assert_eq!("land-late 3s".parse::<Fault>().unwrap(), plan.faults()[19]);
}

#[test]
fn bad_text_is_refused_with_the_line() {
    for bad in ["explode", "flip", "flip x", "latency 3 4", "swap on walk", "swap chance 2", "swap next", "swap now"] {
        let error = bad.parse::<FaultPlan>().unwrap_err().to_string();
        assert!(error.contains(bad), "{error}");
    }
}

#[test]
fn flips_are_distinct_and_inside() {
    let places = flips(40, 9, 5);
    assert_eq!(places.len(), 40);
    assert!(places.iter().all(|(offset, _)| *offset < 5));
    assert!(flips(3, 9, 0).is_empty());
    assert_eq!(flips(1, 3, 1000).len(), 1);
}

#[test]
fn effects_fold_into_a_course_that_fits_the_operation() {
    let late = [
        Effect::Delay(Duration::from_millis(1)),
        Effect::Delay(Duration::from_millis(2)),
        Effect::Before(Stop::Full),
        Effect::Late(Duration::from_secs(1)),
        Effect::Body(Tamper::Reset(9)),
        Effect::Swap(4),
    ];
    let put = Course::of(Op::Put, &late);
    assert_eq!(put.delay, Duration::from_millis(3));
    assert_eq!(put.before, Some(Stop::Full));
    assert_eq!(put.after, Some(Stop::Reset));
    assert_eq!(put.late, Some(Duration::from_secs(1)));
    assert_eq!((put.swap, put.body), (None, None));
    let get = Course::of(Op::Get, &late);
    assert_eq!((get.before, get.late, get.after), (None, None, None));
    assert_eq!((get.swap, get.body), (Some(4), Some(Tamper::Reset(9))));
}

#[test]
fn a_cut_never_keeps_everything() {
    assert_eq!(Tamper::cut(u16::MAX, 1), 0);
    assert!(Tamper::cut(u16::MAX, 1 << 40) < 1 << 40);
    assert_eq!(When::chance(2.0), When::Chance { ppm: 1_000_000 });
}
