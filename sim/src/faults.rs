//! What is done to an ensemble while its clients work.

use crate::ensemble::Ensemble;
use crate::world::MS;
use rand::Rng;
use rand::seq::IndexedRandom;
use slice_proto::ids::Role;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Clients, for partitions between them and a µproxy.
const NS_PER_S: i64 = 1_000_000_000;

/// Does one thing to it, and undoes it in a while.
fn strike(e: &Rc<Ensemble>, clients: usize) {
    let world = &e.world;
    let nodes = world.nodes.len();
    let (what, node, wait, long) = world.draw(|rng| {
        let long = if rng.random_bool(0.2) { 10_000 } else { 600 };
        (rng.random_range(0..100), rng.random_range(0..nodes), rng.random_range(1..long) * MS, rng.random())
    });
    let restart = {
        let e = Rc::clone(e);
        move |node: usize| {
            let e = Rc::clone(&e);
            world.after(wait, move |_| e.start(node));
        }
    };
    match what {
        0..45 => {
            // Directory servers more often than the rest.
            let dirs = e.nodes(Role::Dir);
            let node = if long { *world.draw(|rng| dirs.choose(rng).expect("there are some")) } else { node };
            if world.draw(|rng| rng.random_ratio(2, 3)) {
                e.kill(node);
                return restart(node);
            }
            // Right after its caller has been told something: what that says must be true.
            let more = world.draw(|rng| rng.random_range(0..4));
            let e = Rc::clone(e);
            let kill = move || {
                e.kill(node);
                let world = Rc::clone(&e.world);
                world.after(wait, move |_| e.start(node));
            };
            *world.nodes[node].doom.borrow_mut() = Some((more, Box::new(kill)));
        }
        45..50 => {
            world.note(|| "everything is killed".to_owned());
            for node in 0..nodes {
                e.kill(node);
                restart(node);
            }
        }
        50..60 => {
            let set = &world.nodes[node];
            world.note(|| format!("{} stopped for {} ms", set.name, wait / MS));
            set.stopped.set(true);
            let life = set.life.get();
            world.after(wait, move |w| {
                if w.nodes[node].life.get() == life {
                    w.nodes[node].stopped.set(false);
                    // Its tasks were woken in vain meanwhile.
                    w.at(w.now(), |_| ());
                }
            });
        }
        60..75 => {
            let other = world.draw(|rng| rng.random_range(0..nodes + clients));
            if other != node {
                world.note(|| format!("{node} and {other} do not reach each other for {} ms", wait / MS));
                world.part(node, other, true);
                world.after(wait, move |w| w.part(node, other, false));
            }
        }
        75..90 => {
            let all = world.connections();
            let some: Vec<_> = world.draw(|rng| all.into_iter().filter(|_| rng.random_bool(0.4)).collect());
            some.into_iter().for_each(|key| world.cut(key));
        }
        90..95 => {
            world.note(|| format!("the network is slow for {} ms", wait / MS));
            world.net.borrow_mut().slow_until = world.now() + wait;
        }
        _ => {
            let by = world.draw(|rng| rng.random_range(-3600..3600)) * NS_PER_S;
            world.note(|| format!("the clock of {} jumps by {} s", world.nodes[node].name, by / NS_PER_S));
            world.nodes[node].clock.off_ns.fetch_add(by, Ordering::Relaxed);
        }
    }
}

/// Strikes some times; how often.
pub async fn torment(e: Rc<Ensemble>, clients: usize, count: usize, within: Duration) {
    let mut times: Vec<u64> =
        e.world.draw(|rng| (0..count).map(|_| rng.random_range(0..within.as_nanos() as u64)).collect());
    times.sort_unstable();
    let start = tokio::time::Instant::now();
    for time in times {
        tokio::time::sleep_until(start + Duration::from_nanos(time)).await;
        strike(&e, clients);
    }
}
