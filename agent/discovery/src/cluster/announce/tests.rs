use super::*;

/// What is said of the pod `a/x`, and what is written then.
struct World {
    announcements: Announcements,
    orders: mpsc::UnboundedReceiver<Order>,
    now: Instant,
}

fn truth(uid: &str, enrolled: bool) -> Statement {
    let reason = if enrolled { "Enrolled" } else { "NotSelected" };
    Statement { uid: uid.into(), enrolled, reason, message: String::new() }
}

impl World {
    fn new() -> Self {
        let (sender, orders) = mpsc::unbounded_channel();
        Self { announcements: Announcements::new(sender), orders, now: Instant::now() }
    }

    fn say(&mut self, truth: Option<Statement>, carried: Option<Announced>) -> Vec<String> {
        let uid = truth.as_ref().map_or("u".into(), |truth| truth.uid.clone());
        let subjects = BTreeMap::from([("a/x".into(), Subject { truth, uid, carried })]);
        self.announcements.say(subjects, self.now);
        self.written()
    }

    fn written(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        while let Ok(order) = self.orders.try_recv() {
            all.push(match order {
                Order::Write { statement, turns, .. } => format!("{} turns={turns}", statement.enrolled),
                Order::Forget(key) => format!("forget {key}"),
            });
        }
        all
    }

    fn taken(&mut self, statement: Statement) {
        self.announcements.taken(&Taken { key: "a/x".into(), statement }, self.now);
    }

    fn may_leave(&self, carried: Option<Announced>) -> Option<Instant> {
        self.announcements.may_leave("a/x", "u", carried, self.now)
    }
}

#[test]
fn what_is_true_is_written_once() {
    let mut world = World::new();
    assert_eq!(world.say(Some(truth("u", true)), None), ["true turns=true"]);
    assert_eq!(world.say(Some(truth("u", true)), None), [""; 0]);
    world.taken(truth("u", true));
    assert_eq!(world.say(Some(truth("u", true)), Some(Announced::Enrolled)), [""; 0]);
    assert_eq!(world.say(Some(truth("u", false)), Some(Announced::Enrolled)), ["false turns=true"]);
    let other = Statement { reason: "OptedOut", ..truth("u", false) };
    assert_eq!(world.say(Some(other), Some(Announced::Left)), ["false turns=false"]);
}

#[test]
fn what_the_pods_carry_already_is_not_written_and_what_is_wrong_is_mended() {
    let mut world = World::new();
    assert_eq!(world.say(Some(truth("u", true)), Some(Announced::Enrolled)), [""; 0]);
    let mut world = World::new();
    assert_eq!(world.say(Some(truth("u", false)), Some(Announced::Enrolled)), ["false turns=true"]);
}

#[test]
fn what_the_controller_took_back_is_said_again() {
    // By an agent that starts,
    let mut world = World::new();
    assert_eq!(world.say(Some(truth("u", true)), Some(Announced::Unsure)), ["true turns=true"]);
    // by one that was away for a while,
    world.taken(truth("u", true));
    world.now += OVERWRITTEN * 2;
    assert_eq!(world.say(Some(truth("u", true)), Some(Announced::Unsure)), ["true turns=true"]);
    // and a pod that it was taken back of is called by mutual TLS still: it has to be taken back before it leaves.
    assert_eq!(World::new().may_leave(Some(Announced::Unsure)), None);
}

#[test]
fn what_somebody_else_wrote_over_is_mended_but_not_what_has_not_arrived_yet() {
    let mut world = World::new();
    world.say(Some(truth("u", true)), None);
    world.taken(truth("u", true));
    world.now += Duration::from_secs(1);
    assert_eq!(world.say(Some(truth("u", true)), None), [""; 0]);
    world.now += OVERWRITTEN;
    assert_eq!(world.say(Some(truth("u", true)), Some(Announced::Left)), ["true turns=true"]);
}

#[test]
fn a_pod_leaves_after_the_others_had_time_to_see_it() {
    let mut world = World::new();
    world.say(Some(truth("u", true)), None);
    world.taken(truth("u", true));
    assert_eq!(world.may_leave(Some(Announced::Enrolled)), None);
    world.say(Some(truth("u", false)), Some(Announced::Enrolled));
    // Not before the server knows.
    assert_eq!(world.may_leave(Some(Announced::Enrolled)), None);
    // What it took is the statement before.
    world.taken(truth("u", true));
    assert_eq!(world.may_leave(Some(Announced::Enrolled)), None);
    world.taken(truth("u", false));
    assert_eq!(world.may_leave(Some(Announced::Enrolled)), Some(world.now + GRACE));
}

#[test]
fn a_pod_is_known_to_join_once_the_server_has_taken_that_it_did() {
    let mut world = World::new();
    let known = |world: &World| world.announcements.known_to_join("a/x", "u");
    assert_eq!(known(&world), None);
    world.say(Some(truth("u", true)), None);
    assert_eq!(known(&world), None);
    world.taken(truth("u", true));
    assert_eq!(known(&world), Some(world.now));
    assert_eq!(world.announcements.known_to_join("a/x", "v"), None);
    // One that leaves has to join again.
    world.say(Some(truth("u", false)), Some(Announced::Enrolled));
    world.taken(truth("u", false));
    assert_eq!(known(&world), None);
}

#[test]
fn a_pod_that_was_never_announced_leaves_at_once() {
    let world = World::new();
    assert_eq!(world.may_leave(None), Some(world.now));
    assert_eq!(world.may_leave(Some(Announced::Left)), Some(world.now));
    // An agent before this one has announced it.
    assert_eq!(world.may_leave(Some(Announced::Enrolled)), None);
}

#[test]
fn another_pod_of_the_name_is_another() {
    let mut world = World::new();
    world.say(Some(truth("u", true)), None);
    assert_eq!(world.say(Some(truth("v", true)), None), ["true turns=true"]);
    world.announcements.say(BTreeMap::new(), world.now);
    assert_eq!(world.written(), ["forget a/x"]);
}
