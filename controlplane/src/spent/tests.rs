//! One process after the other on the same folder.

use super::*;
use crate::state_dir::tests::Scratch;

const SECOND: u64 = 1_000_000_000;
const MINUTE: LimitKey = LimitKey(1);
const HOUR: LimitKey = LimitKey(2);

/// A process with a limit of 1,000 in a minute and one of 1,000 in an hour.
struct Process {
    spent: Spent,
    clock: Clock,
    minute: Arc<LimitRing>,
    hour: Arc<LimitRing>,
}

impl Process {
    fn start(scratch: &Scratch) -> Self {
        let clock = Clock::start();
        let spent = Spent::open(Some(Arc::new(StateDir::open(&scratch.0).unwrap())), clock);
        let ring = |seconds| Arc::new(LimitRing::new(Window::new(seconds * SECOND).unwrap(), 1_000, clock.now()));
        let mut process = Self { spent, clock, minute: ring(60), hour: ring(3_600) };
        process.follow(&[MINUTE, HOUR], false);
        process
    }

    fn follow(&mut self, keys: &[LimitKey], is_shared: bool) {
        let followed = |key: &LimitKey| Followed {
            key: *key,
            unit: Unit::Requests,
            ring: Arc::clone(if *key == MINUTE { &self.minute } else { &self.hour }),
            is_shared,
        };
        self.spent.follow(keys.iter().map(followed).collect(), self.clock.now());
    }

    fn spend(&self, ring: &LimitRing, amount: u64) {
        let now = self.clock.now();
        assert!(ring.try_hold(amount, now));
        ring.stamp(amount, now);
    }

    /// Writes what there is to write.
    async fn write(&mut self) {
        self.spent.next_at = self.clock.now();
        self.spent.next_urgent_at = self.clock.now();
        self.spent.look(&|_| None, self.clock.now());
        if self.spent.writing.is_some() {
            self.spent.written().await;
        }
    }

    /// Spends of the hour, whose cap has to be raised for it.
    async fn spend_of_hour(&mut self, amount: u64) {
        for _ in 0..amount / 10 {
            self.spend(&self.hour, 10);
            self.write().await;
        }
    }

    async fn end(mut self) {
        self.spent.close();
        self.spent.end(&|_| None).await;
    }

    fn used(&self) -> (u64, u64) {
        (self.minute.used(), self.hour.used())
    }
}

#[tokio::test]
async fn a_process_that_ended_in_order_left_all_there_is_to_count() {
    let scratch = Scratch::new();
    let mut first = Process::start(&scratch);
    assert_eq!(first.used(), (0, 0), "nobody was here before");
    first.spend(&first.minute, 200);
    first.spend_of_hour(300).await;
    // Runs until the end, and may have spent it.
    assert!(first.minute.try_hold(5, first.clock.now()));
    first.end().await;
    let mut second = Process::start(&scratch);
    assert_eq!(second.used(), (205, 300));
    assert_eq!(second.spent.not_known(HOUR).0, 0);
    second.spend_of_hour(700).await;
    assert!(!second.hour.try_hold(1, second.clock.now()));
    assert!(second.minute.try_hold(795, second.clock.now()));
}

#[tokio::test]
async fn of_a_process_that_was_killed_short_windows_are_full_and_long_ones_lack_little() {
    let scratch = Scratch::new();
    let mut first = Process::start(&scratch);
    first.spend(&first.minute, 1);
    first.spend_of_hour(300).await;
    // Spent after the last record.
    first.spend(&first.hour, 10);
    drop(first);
    let mut second = Process::start(&scratch);
    let (minute, hour) = second.used();
    assert_eq!(minute, 1_000);
    assert!((310..=350).contains(&hour), "{hour}");
    let free = (1_000 - hour) / 10 * 10;
    second.spend_of_hour(free).await;
    assert!(!second.hour.try_hold(10, second.clock.now()));
}

#[test]
fn what_was_spent_by_a_larger_amount_stays_spent_when_that_comes_back() {
    let scratch = Scratch::new();
    let first = Process::start(&scratch);
    first.spend(&first.minute, 900);
    drop(first);
    let change = |process: &mut Process, amount| {
        process.minute.set_amount(amount);
        process.minute.set_entitlement(amount);
        process.follow(&[MINUTE, HOUR], false);
    };
    let clock = Clock::start();
    let spent = Spent::open(Some(Arc::new(StateDir::open(&scratch.0).unwrap())), clock);
    let ring = |seconds| Arc::new(LimitRing::new(Window::new(seconds * SECOND).unwrap(), 100, clock.now()));
    let mut second = Process { spent, clock, minute: ring(60), hour: ring(3_600) };
    second.follow(&[MINUTE, HOUR], false);
    assert_eq!(second.minute.used(), 100);
    for amount in [1_000, 200, 1_000] {
        change(&mut second, amount);
        assert_eq!(second.minute.used(), 1_000, "nobody knows that it were not all");
    }
}

#[tokio::test]
async fn nothing_is_spent_beyond_what_is_on_disk_and_the_headroom() {
    let scratch = Scratch::new();
    let mut process = Process::start(&scratch);
    process.spend(&process.hour, 20);
    assert!(!process.hour.try_hold(1, process.clock.now()));
    assert_eq!(process.hour.available_at(1, Nanos(0)), Some(Nanos(SECOND / 5)), "it is about to be raised");
    process.spent.next_urgent_at = process.clock.now();
    process.spent.look(&|_| None, process.clock.now());
    assert!(!process.hour.try_hold(1, process.clock.now()), "it is not written yet");
    process.spent.written().await;
    process.spend(&process.hour, 20);
    // A crash now finds both.
    drop(process);
    assert!(Process::start(&scratch).hour.used() >= 40);
}

#[test]
fn a_start_right_after_another_does_not_take_the_record_before_it_for_its_own() {
    let scratch = Scratch::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(Process::start(&scratch).end());
    let second = Process::start(&scratch);
    assert_eq!(second.used(), (0, 0));
    second.spend(&second.hour, 20);
    drop(second);
    let third = Process::start(&scratch);
    assert_eq!(third.used(), (1_000, 20));
}

#[tokio::test]
async fn a_damaged_or_lost_record_fills_short_windows_only() {
    let scratch = Scratch::new();
    let mut first = Process::start(&scratch);
    first.spend_of_hour(300).await;
    first.end().await;
    let path = scratch.0.join(FILE_NAME);
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(Process::start(&scratch).used(), (1_000, 0));
    std::fs::remove_file(&path).unwrap();
    assert_eq!(Process::start(&scratch).used(), (1_000, 0));
}

#[tokio::test]
async fn a_limit_that_is_not_configured_for_a_while_is_not_forgotten() {
    let scratch = Scratch::new();
    let mut first = Process::start(&scratch);
    first.spend_of_hour(100).await;
    first.end().await;
    let clock = Clock::start();
    let mut second = Spent::open(Some(Arc::new(StateDir::open(&scratch.0).unwrap())), clock);
    second.follow(Vec::new(), clock.now());
    second.close();
    second.end(&|_| None).await;
    drop(second);
    assert_eq!(Process::start(&scratch).hour.used(), 100);
}

#[tokio::test]
async fn what_was_handed_over_at_the_end_is_counted_by_whoever_got_it() {
    let scratch = Scratch::new();
    let mut first = Process::start(&scratch);
    first.follow(&[MINUTE, HOUR], true);
    first.spend_of_hour(100).await;
    first.spent.close();
    first.hour.set_entitlement(0);
    first.spent.end(&|_| None).await;
    drop(first);
    assert_eq!(Process::start(&scratch).hour.used(), 0);
}

#[tokio::test]
async fn what_is_owed_is_owed_until_the_escrow_has_charged_it() {
    let scratch = Scratch::new();
    let mut first = Process::start(&scratch);
    first.spend_of_hour(100).await;
    drop(first);
    let clock = Clock::start();
    let open = || {
        let mut spent = Spent::open(Some(Arc::new(StateDir::open(&scratch.0).unwrap())), clock);
        let ring = Arc::new(LimitRing::new(Window::new(3_600 * SECOND).unwrap(), 1_000, clock.now()));
        ring.set_entitlement(0);
        let followed = Followed { key: HOUR, unit: Unit::Requests, ring: Arc::clone(&ring), is_shared: true };
        spent.follow(vec![followed], clock.now());
        (spent, ring)
    };
    let (second, ring) = open();
    let owed = second.not_known(HOUR).0;
    assert!((20..=50).contains(&owed) && ring.used() == 100, "{owed}");
    drop(second);
    let (mut third, ring) = open();
    assert!(third.not_known(HOUR).0 >= owed && ring.used() == 100);
    third.is_charged();
    assert_eq!(third.not_known(HOUR).0, 0);
}

#[test]
fn a_node_whose_disk_fails_serves_on_without_caps() {
    let scratch = Scratch::new();
    let clock = Clock::start();
    let dir = Arc::new(StateDir::open(&scratch.0).unwrap());
    std::fs::remove_dir_all(&scratch.0).unwrap();
    let ring = Arc::new(LimitRing::new(Window::new(3_600 * SECOND).unwrap(), 1_000, clock.now()));
    let mut spent = Spent::open(Some(dir), clock);
    let followed = Followed { key: HOUR, unit: Unit::Requests, ring: Arc::clone(&ring), is_shared: false };
    spent.follow(vec![followed], clock.now());
    assert_eq!(ring.entitlement(), 1_000);
}
