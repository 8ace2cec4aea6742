use proptest::prelude::*;

use super::*;
use crate::margin::Further;

const SECOND: Duration = Duration::from_secs(1);

fn extent(number: u8) -> ExtentId {
    ExtentId([number; 16])
}

fn margin(after_a_site: Option<u32>, now: u32) -> Margin {
    let further = |nodes| Further { nodes, devices: nodes, fragments: nodes };
    Margin { present: 4, needed: 4, now: Some(further(now)), after_a_site: after_a_site.map(further) }
}

fn repair(number: u8, margin: &Margin, since_ms: u64, lane: Lane, bytes: u64) -> Repair {
    Repair {
        extent: extent(number),
        priority: RepairPriority::new(Cause::Lacking, margin, since_ms),
        lane,
        bytes,
    }
}

fn queue(lan: u64, wan: u64) -> RepairQueue {
    RepairQueue::new(TokenBucket::new(lan, Duration::ZERO), TokenBucket::new(wan, Duration::ZERO))
}

fn started(next: Next) -> u8 {
    match next {
        Next::Start(repair) => repair.extent.0[0],
        other => panic!("nothing starts: {other:?}"),
    }
}

#[test]
fn what_the_loss_of_a_site_would_lose_goes_first_then_the_fewest_losses_then_age() {
    let mut queue = queue(1 << 30, 1 << 30);
    queue.push(repair(1, &margin(Some(1), 3), 5, Lane::Lan, 1));
    queue.push(repair(2, &margin(Some(0), 3), 6, Lane::Lan, 1));
    queue.push(repair(3, &margin(None, 1), 9, Lane::Wan, 1));
    queue.push(repair(4, &margin(None, 0), 9, Lane::Wan, 1));
    queue.push(repair(5, &margin(Some(0), 3), 2, Lane::Lan, 1));
    let order: Vec<u8> = (0..5).map(|_| started(queue.pop(Duration::ZERO))).collect();
    assert_eq!(order, [4, 3, 5, 2, 1]);
    assert_eq!(queue.pop(Duration::ZERO), Next::Idle);
}

#[test]
fn what_only_moves_waits_until_nothing_lacks_rows_whatever_its_margin() {
    let mut queue = queue(1 << 30, 1 << 30);
    let moves = |number, cause, margin: &Margin| Repair {
        priority: RepairPriority::new(cause, margin, 1),
        ..repair(number, margin, 1, Lane::Lan, 1)
    };
    queue.push(moves(1, Cause::Levelling, &margin(None, 0)));
    queue.push(moves(2, Cause::Draining, &margin(Some(0), 1)));
    queue.push(repair(3, &margin(Some(2), 9), 9, Lane::Lan, 1));
    let order: Vec<u8> = (0..3).map(|_| started(queue.pop(Duration::ZERO))).collect();
    assert_eq!(order, [3, 2, 1]);
}

#[test]
fn an_extent_waits_once_with_its_newest_margin() {
    let mut queue = queue(1 << 30, 1 << 30);
    queue.push(repair(1, &margin(Some(1), 3), 5, Lane::Lan, 1));
    queue.push(repair(2, &margin(Some(0), 3), 5, Lane::Lan, 1));
    queue.push(repair(1, &margin(None, 0), 5, Lane::Wan, 1));
    assert_eq!((queue.len(), queue.waiting_bytes(Lane::Wan)), (2, 1));
    assert_eq!(started(queue.pop(Duration::ZERO)), 1);
    assert_eq!(started(queue.pop(Duration::ZERO)), 2);
    assert_eq!(queue.pop(Duration::ZERO), Next::Idle);
}

#[test]
fn what_is_found_while_a_repair_runs_waits_until_it_has_ended() {
    let mut queue = queue(1 << 30, 1 << 30);
    queue.push(repair(1, &margin(Some(1), 3), 5, Lane::Lan, 1));
    assert_eq!(started(queue.pop(Duration::ZERO)), 1);
    queue.push(repair(1, &margin(Some(0), 2), 6, Lane::Lan, 1));
    assert_eq!((queue.pop(Duration::ZERO), queue.running()), (Next::Idle, 1));
    queue.finish(extent(1));
    assert_eq!(started(queue.pop(Duration::ZERO)), 1);
    queue.push(repair(1, &margin(Some(0), 2), 6, Lane::Lan, 1));
    queue.remove(extent(1));
    queue.finish(extent(1));
    assert_eq!((queue.pop(Duration::ZERO), queue.running()), (Next::Idle, 0));
}

#[test]
fn an_empty_wan_budget_holds_up_no_repair_on_the_lan() {
    let mut queue = queue(1 << 30, 100);
    queue.push(repair(1, &margin(None, 0), 1, Lane::Wan, 250));
    queue.push(repair(2, &margin(None, 0), 2, Lane::Wan, 10));
    queue.push(repair(3, &margin(Some(1), 3), 3, Lane::Lan, 10));
    assert_eq!(started(queue.pop(Duration::ZERO)), 1);
    assert_eq!(started(queue.pop(Duration::ZERO)), 3);
    let Next::WaitUntil(at) = queue.pop(Duration::ZERO) else { panic!("the budget is spent") };
    assert!(at > Duration::from_millis(1_500) && at < Duration::from_millis(1_501), "{at:?}");
    assert_eq!(queue.pop(at.saturating_sub(Duration::from_nanos(1))), Next::WaitUntil(at));
    assert_eq!(started(queue.pop(at)), 2);
}

#[test]
fn a_budget_of_zero_pauses_until_it_is_changed() {
    let mut queue = queue(0, 0);
    queue.push(repair(1, &margin(None, 0), 1, Lane::Lan, 250));
    assert_eq!(queue.pop(SECOND), Next::Paused);
    queue.budget_mut(Lane::Lan).set_rate(10, SECOND);
    assert_eq!(started(queue.pop(2 * SECOND)), 1);
}

proptest! {
    /// Over any time no more is let through than the rate allows, one second's savings and the last act beside.
    #[test]
    fn the_rate_holds_over_time(rate in 1_u64..10_000, acts in prop::collection::vec((0_u64..5_000, 0_u64..3_000_000_000), 1..60)) {
        let mut bucket = TokenBucket::new(rate, Duration::ZERO);
        let (mut now, mut moved, mut last) = (Duration::ZERO, 0_u64, 0_u64);
        for (bytes, pause) in acts {
            now += Duration::from_nanos(pause);
            let at = bucket.ready_at(now).expect("the rate is not zero");
            prop_assert!(at >= now);
            now = at;
            prop_assert_eq!(bucket.ready_at(now), Some(now));
            bucket.take(now, bytes);
            moved += bytes;
            last = last.max(bytes);
            let allowed = now.as_secs_f64() * rate as f64 + rate as f64 + last as f64 + 1.0;
            prop_assert!(moved as f64 <= allowed, "{moved} bytes in {now:?} at {rate}");
        }
    }

    /// Whatever is pushed, removed and ended: each extent is started as its newest view says, the most urgent first.
    #[test]
    fn the_queue_agrees_with_a_list_that_is_searched(steps in prop::collection::vec((0_u8..4, 0_u8..6, prop::option::of(0_u32..3), 0_u64..4, any::<bool>()), 1..80)) {
        let mut queue = queue(1 << 40, 1 << 40);
        let mut waiting: Vec<Repair> = Vec::new();
        let mut running: Vec<(ExtentId, Option<Repair>)> = Vec::new();
        for (act, number, after, since, wan) in steps {
            let lane = if wan { Lane::Wan } else { Lane::Lan };
            let view = repair(number, &margin(after, 1), since, lane, 1);
            let place = running.iter().position(|(id, _)| *id == view.extent);
            match act {
                0 => {
                    queue.push(view);
                    if let Some(place) = place {
                        running[place].1 = Some(view);
                    } else {
                            waiting.retain(|other| other.extent != view.extent);
                            waiting.push(view);
                    }
                }
                1 => {
                    queue.remove(view.extent);
                    waiting.retain(|other| other.extent != view.extent);
                    if let Some(place) = place {
                        running[place].1 = None;
                    }
                }
                2 => {
                    queue.finish(view.extent);
                    if let Some(place) = place {
                        waiting.extend(running.remove(place).1);
                    }
                }
                _ => {
                    let best = waiting.iter().copied().min_by_key(|other| (other.priority, other.extent));
                    prop_assert_eq!(queue.pop(SECOND), best.map_or(Next::Idle, Next::Start));
                    if let Some(best) = best {
                        waiting.retain(|other| other.extent != best.extent);
                        running.push((best.extent, None));
                    }
                }
            }
            prop_assert_eq!((queue.len(), queue.running()), (waiting.len(), running.len()));
        }
    }
}
