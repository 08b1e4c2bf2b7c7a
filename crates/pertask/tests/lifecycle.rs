//! From the making of a task to its end: what is left of it (nothing), whatever way it ends.

mod support;

use std::{
    cell::{Cell, RefCell},
    future::{Future, pending, poll_fn, ready},
    marker::{PhantomData, PhantomPinned},
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    rc::Rc,
    sync::{
        Arc, Mutex,
        mpsc::{self, Sender},
    },
    task::{Context, Poll},
    thread,
};

use pertask::{
    Inherit, Session, Task, TaskExt, Tracked,
    core::{Cpu, System, TaskId, rcu},
};
use support::{
    alone, check_ns, cpu_time, current_task, live_tasks, poll_once, row, run, spin, yield_once,
};

/// What there is of tasks and their data.
fn living() -> (usize, usize) {
    rcu::barrier().unwrap();
    (System::global().live_tasks(), cpu_time().cache().live())
}

#[test]
fn a_task_lives_from_its_making_to_its_end() {
    let _alone = alone();
    let (tasks, _) = living();
    let live = || System::global().live_tasks() - tasks;
    let (ready, dropped) = (ready(7).task("ready"), pending::<()>().task("dropped"));
    let never_polled = async {}.task_here();
    assert_eq!(live(), 3);
    let handles = [ready.handle(), dropped.handle(), never_polled.handle()]
        .map(|handle| Arc::clone(handle.expect("the thread is not ending")));

    // Ready: it ends there and then, not when it is dropped.
    let mut ready = Box::pin(ready);
    assert_eq!(poll_once(ready.as_mut()), Poll::Ready(7));
    assert_eq!(live(), 2);
    assert!(handles[0].has_exited() && ready.handle().is_none());
    drop(ready);

    let mut dropped = Box::pin(dropped);
    assert!(poll_once(dropped.as_mut()).is_pending());
    assert!(!handles[1].has_exited());
    drop(dropped);
    assert!(handles[1].has_exited());
    assert_eq!(live(), 1);

    drop(never_polled);
    assert!(handles[2].has_exited());
    assert_eq!(live(), 0);
}

#[test]
fn per_task_data_is_freed_with_the_task_and_with_the_session() {
    let _alone = alone();
    let before = living();
    // Those that another test has forgotten are given data as well.
    let all = before.0 + before.1;
    let old: Vec<_> = (0..10).map(|_| Box::pin(pending::<()>().task("data, old"))).collect();
    assert_eq!(living(), (before.0 + 10, before.1), "nobody is attached");

    let session = Session::start().unwrap();
    assert_eq!(living(), (before.0 + 10, all + 10), "attached to those that live");
    let mut new: Vec<_> = (0..5).map(|_| Box::pin(pending::<()>().task("data, new"))).collect();
    for task in &mut new {
        assert!(poll_once(task.as_mut()).is_pending());
    }
    assert_eq!(living(), (before.0 + 15, all + 15), "and to those that are born");
    drop(new);
    assert_eq!(living(), (before.0 + 10, all + 10), "data goes with the task");
    drop(session);
    assert_eq!(living(), (before.0 + 10, before.1), "and with the session");
    drop(old);
    assert_eq!(living(), before);
}

/// A forgotten future is a task that is never polled again, and nothing else.
#[test]
fn forgetting_a_task_leaks_only_itself() {
    let _alone = alone();
    let before = living();
    let session = Session::start().unwrap();
    let mut outer = Box::pin(
        async {
            let forgotten = pending::<()>().task("forgotten unpolled");
            let sibling = async { spin(5) }.task("sibling of the forgotten");
            mem::forget(forgotten);
            sibling.await;
        }
        .task("around the forgotten"),
    );
    assert!(poll_once(outer.as_mut()).is_ready());
    // Forgotten after a poll, boxed, so that its pin is honoured.
    let mut polled = Box::pin(async { yield_once().await }.task("forgotten"));
    assert!(poll_once(polled.as_mut()).is_pending());
    mem::forget(polled);

    let report = session.stop();
    for name in ["forgotten unpolled", "forgotten"] {
        assert_eq!((row(&report, name).tasks_live, live_tasks(name).len()), (1, 1), "{name}");
    }
    check_ns("sibling", row(&report, "sibling of the forgotten").usage.cpu_ns, support::ms(5));
    // Two tasks; their data went with the session.
    assert_eq!(living(), (before.0 + 2, before.1));
}

#[test]
fn a_panic_passes_through_and_ends_the_task_when_it_is_dropped() {
    let _alone = alone();
    let before = living();
    let session = Session::start().unwrap();
    let mut future = Box::pin(
        async {
            spin(5);
            quiet_panic("as arranged");
        }
        .task("panics"),
    );
    let task = Arc::clone(future.handle().unwrap());
    let caught = catch_unwind(AssertUnwindSafe(|| poll_once(future.as_mut()).is_ready()));
    let payload = caught.expect_err("the panic passes through");
    assert_eq!(payload.downcast_ref(), Some(&"as arranged"));
    assert!(current_task().is_none(), "the task was switched out");
    assert!(!task.has_exited());
    drop(future);
    assert!(task.has_exited());
    check_ns("panics", row(&session.stop(), "panics").usage.cpu_ns, support::ms(5));
    assert_eq!(living(), before);
}

#[test]
fn a_destructor_that_panics_ends_the_task() {
    let _alone = alone();
    let before = living();
    let session = Session::start().unwrap();
    let future = async {
        let _guard = OnDrop(|| {
            spin(5);
            quiet_panic("in the destructor");
        });
        pending::<()>().await;
    };
    let mut future = Box::pin(future.task("panics in drop"));
    assert!(poll_once(future.as_mut()).is_pending());
    catch_unwind(AssertUnwindSafe(|| drop(future))).expect_err("the panic passes through");
    assert!(current_task().is_none(), "the task was switched out");
    assert!(live_tasks("panics in drop").is_empty());
    check_ns("panics in drop", row(&session.stop(), "panics in drop").usage.cpu_ns, support::ms(5));
    assert_eq!(living(), before);
}

/// What the future's destructor does is done by the task: its time, and the tasks that it makes.
#[test]
fn a_destructor_runs_as_part_of_the_task() {
    let _alone = alone();
    let session = Session::start().unwrap();
    for polls in [0, 1] {
        let child: Rc<RefCell<Option<Tracked<_>>>> = Rc::default();
        let for_drop = Rc::clone(&child);
        let guard = OnDrop(move || {
            spin(10);
            *for_drop.borrow_mut() = Some(ready(()).task("made in drop"));
        });
        let future = async move {
            let _guard = guard;
            pending::<()>().await;
        };
        let mut future = Box::pin(future.task("made it in drop"));
        let id = future.handle().unwrap().id();
        for _ in 0..polls {
            assert!(poll_once(future.as_mut()).is_pending());
        }
        drop(future);
        let child = child.take().expect("the destructor has run");
        assert_eq!(child.handle().unwrap().parent(), Some(id), "after {polls} polls");
    }
    let report = session.stop();
    check_ns("made it in drop", row(&report, "made it in drop").usage.cpu_ns, support::ms(20));
}

/// To be dropped is not to be polled.
#[test]
fn a_drop_is_not_a_poll() {
    let _alone = alone();
    let session = Session::start().unwrap();
    drop(pending::<()>().task("dropped before its first poll"));
    let mut once = Box::pin(pending::<()>().task("dropped after one poll"));
    assert!(poll_once(once.as_mut()).is_pending());
    drop(once);
    let report = session.stop();
    assert_eq!(row(&report, "dropped before its first poll").usage.polls, 0);
    assert_eq!(row(&report, "dropped after one poll").usage.polls, 1);
}

/// After it was ready, a future that is polled again is on its own, and does what it does without the wrapper.
#[test]
fn a_poll_after_the_end_is_passed_through() {
    let _alone = alone();
    let polls = Cell::new(0);
    let counts = poll_fn(|_| {
        polls.set(polls.get() + 1);
        Poll::Ready(current_task().map(|task| task.id()))
    });
    let mut future = Box::pin(counts.task("polled again"));
    let id = future.handle().map(|task| task.id());
    assert_eq!(poll_once(future.as_mut()), Poll::Ready(id));
    assert_eq!(poll_once(future.as_mut()), Poll::Ready(None));
    assert_eq!(polls.get(), 2);
}

#[test]
fn the_output_is_the_futures_own() {
    let _alone = alone();
    // Neither `Send` nor `Sync`, nor even `'static`.
    let local = String::from("local");
    let rc = Rc::new(RefCell::new(&*local));
    let output = run(async { Rc::clone(&rc) }.task_here());
    assert!(Rc::ptr_eq(&output, &rc));
    let boxed: Box<dyn Fn() -> usize> = run(async { Box::new(|| local.len()) as _ }.task_here());
    assert_eq!(boxed(), 5);
    let error: Result<(), String> = run(async { Err("as it was".to_owned()) }.task_here());
    assert_eq!(error.unwrap_err(), "as it was");
    // A task in a task in a task, and through `dyn`.
    let nested: Pin<Box<dyn Future<Output = u8>>> =
        Box::pin(async { 9 }.task_here().task_here().task_here());
    assert_eq!(run(nested), 9);
}

/// The waker reaches the future unchanged, so that combinators which compare wakers work.
#[test]
fn the_waker_is_the_executors_own() {
    let _alone = alone();
    let waker = futures::task::noop_waker();
    let mut seen = Box::pin(poll_fn(|context| Poll::Ready(context.waker().clone())).task_here());
    let Poll::Ready(seen) = seen.as_mut().poll(&mut Context::from_waker(&waker)) else {
        panic!("it is ready at once")
    };
    assert!(seen.will_wake(&waker));
}

thread_local! {
    static LAST_WORDS: RefCell<Option<LastWords>> = const { RefCell::new(None) };
}

/// What one thread-local's destructor saw, on a thread that is ending.
#[derive(Debug)]
struct Seen {
    output: u64,
    /// The task that ran, as the future saw it.
    inside: Option<TaskId>,
    handle: Option<TaskId>,
    new_has_handle: bool,
}

/// Polls a future that was made while the thread was in its prime, and makes another.
struct LastWords {
    future: Pin<Box<Tracked<Work>>>,
    tell: Sender<Seen>,
}

type Work = Pin<Box<dyn Future<Output = (u64, Option<TaskId>)>>>;

impl Drop for LastWords {
    fn drop(&mut self) {
        let handle = self.future.handle().map(|task| task.id());
        assert!(poll_once(self.future.as_mut()).is_pending());
        let Poll::Ready((output, inside)) = poll_once(self.future.as_mut()) else {
            panic!("two polls were all");
        };
        let new = async { 1 }.task("born at the end");
        let new_has_handle = new.handle().is_some();
        let output = output + run(new);
        let _ = self.tell.send(Seen { output, inside, handle, new_has_handle });
    }
}

fn last_words(name: &'static str, tell: Sender<Seen>) {
    let work: Work = Box::pin(async {
        spin(10);
        yield_once().await;
        (41, current_task().map(|task| task.id()))
    });
    let future = Box::pin(work.task(name));
    LAST_WORDS.with_borrow_mut(|words| *words = Some(LastWords { future, tell }));
}

/// A thread-local that is destroyed before the thread's CPU: nothing is different yet.
#[test]
fn polled_while_a_thread_ends() {
    let _alone = alone();
    let before = living();
    let session = Session::start().unwrap();
    let (tell, told) = mpsc::channel();
    let thread = thread::spawn(move || {
        // Destructors run in the reverse order of first use: the CPU's is the last.
        Cpu::with(|_| ());
        last_words("last words", tell);
    });
    thread.join().unwrap();
    let seen = told.recv().unwrap();
    let report = session.stop();
    assert_eq!(seen.output, 42);
    if seen.inside.is_none() {
        support::loudly("SKIPPED in part: thread-locals were destroyed in another order");
    } else {
        assert_eq!(seen.inside, seen.handle);
        assert!(seen.new_has_handle);
        assert_eq!((row(&report, "last words").usage.polls, report.lost.polls_untracked), (2, 0));
        check_ns("last words", row(&report, "last words").usage.cpu_ns, support::ms(10));
    }
    assert_eq!(living(), before);
}

/// A thread-local that is destroyed after the thread's CPU: the thread becomes a CPU once more, and the future is seen.
#[test]
fn polled_after_the_end_of_the_threads_cpu() {
    let _alone = alone();
    let before = living();
    let session = Session::start().unwrap();
    let (tell, told) = mpsc::channel();
    let thread = thread::spawn(move || {
        // The first use is before the CPU's.
        LAST_WORDS.with(|_| ());
        last_words("very last words", tell);
    });
    thread.join().unwrap();
    let seen = told.recv().unwrap();
    let report = session.stop();
    assert_eq!(seen.output, 42);
    assert!(seen.handle.is_some() && seen.new_has_handle);
    assert_eq!(seen.inside, seen.handle);
    assert_eq!((row(&report, "very last words").usage.polls, report.lost.polls_untracked), (2, 0));
    check_ns("very last words", row(&report, "very last words").usage.cpu_ns, support::ms(10));
    assert_eq!(living(), before);
}

#[test]
fn the_parent_is_the_task_that_runs_where_it_is_made() {
    let _alone = alone();
    let id = |tracked: &Tracked<_>| tracked.handle().map(|task: &Arc<Task>| task.id());
    let outside = ready(()).task_here();
    assert_eq!(outside.handle().unwrap().parent(), None);
    let children: Rc<RefCell<Vec<Tracked<_>>>> = Rc::default();
    let inside = Rc::clone(&children);
    // Made in one poll and in another, of which the second is on another thread's turn.
    let parent = async move {
        inside.borrow_mut().push(ready(()).task("child"));
        yield_once().await;
        inside.borrow_mut().push(ready(()).task("child"));
    };
    let parent = parent.task("parent");
    let parent_id = parent.handle().unwrap().id();
    run(parent);
    let children = children.take();
    assert_eq!(children.len(), 2);
    for child in &children {
        assert_eq!(child.handle().unwrap().parent(), Some(parent_id));
        assert_ne!(id(child), Some(parent_id));
    }
}

#[test]
fn an_event_outlives_its_task_and_gives_back_its_data() {
    let _alone = alone();
    let before = living();
    let work = async { spin(5) }.task("outlived");
    let event = cpu_time().attach_task(work.handle().unwrap(), Inherit::No).unwrap();
    run(work);
    assert_eq!(living(), (before.0, before.1 + 1));
    check_ns("outlived", event.read().cpu_ns, support::ms(5));
    assert_eq!(event.read().polls, 1);
    drop(event);
    assert_eq!(living(), before);
}

/// Tasks that are made, polled and dropped on several threads at once while sessions come and go.
#[test]
fn nothing_is_left_after_a_crowd() {
    const ROUNDS: usize = 300;
    let _alone = alone();
    let before = living();
    let passed_on: Arc<Mutex<Vec<Pin<Box<Tracked<_>>>>>> = Arc::default();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for round in 0..ROUNDS {
                    let mut mine = Box::pin(yield_once().task("crowd"));
                    assert!(poll_once(mine.as_mut()).is_pending());
                    let theirs = {
                        let mut passed_on = passed_on.lock().unwrap();
                        passed_on.push(mine);
                        let at = round % passed_on.len();
                        passed_on.swap_remove(at)
                    };
                    if round % 3 == 0 {
                        drop(theirs);
                    } else {
                        run(theirs);
                    }
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..30 {
                let session = Session::start().unwrap();
                thread::yield_now();
                drop(session.stop());
            }
        });
    });
    drop(passed_on);
    assert_eq!(living(), before);
}

/// Whether a type has a trait: an inherent constant where it has, a trait's constant where not.
macro_rules! has {
    ($type:ty, $trait:path) => {{
        #[allow(dead_code, reason = "used where the type lacks it")]
        trait Otherwise {
            const HAS: bool = false;
        }
        impl<T: ?Sized> Otherwise for T {}
        struct Probe<T: ?Sized>(PhantomData<T>);
        #[allow(dead_code, reason = "used where it has")]
        impl<T: ?Sized + $trait> Probe<T> {
            const HAS: bool = true;
        }
        <Probe<$type>>::HAS
    }};
}

/// A future with the auto traits of `T`.
struct Like<T>(PhantomData<T>);

impl<T> Future for Like<T> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}

/// `Tracked` has exactly the auto traits of what it wraps.
const _: () = {
    assert!(has!(Like<()>, Send) && has!(Like<()>, Sync) && has!(Like<()>, Unpin));
    assert!(has!(Tracked<Like<()>>, Send));
    assert!(has!(Tracked<Like<()>>, Sync));
    assert!(has!(Tracked<Like<()>>, Unpin));

    type Neither = Like<Rc<()>>;
    assert!(!has!(Neither, Send) && !has!(Neither, Sync));
    assert!(!has!(Tracked<Neither>, Send));
    assert!(!has!(Tracked<Neither>, Sync));
    assert!(has!(Tracked<Neither>, Unpin));

    type SendOnly = Like<Cell<()>>;
    assert!(has!(SendOnly, Send) && !has!(SendOnly, Sync));
    assert!(has!(Tracked<SendOnly>, Send));
    assert!(!has!(Tracked<SendOnly>, Sync));

    type SyncOnly = Like<std::sync::MutexGuard<'static, ()>>;
    assert!(!has!(SyncOnly, Send) && has!(SyncOnly, Sync));
    assert!(!has!(Tracked<SyncOnly>, Send));
    assert!(has!(Tracked<SyncOnly>, Sync));

    assert!(!has!(Like<PhantomPinned>, Unpin));
    assert!(!has!(Tracked<Like<PhantomPinned>>, Unpin));
    assert!(has!(Tracked<Like<PhantomPinned>>, Send));
};

/// A tracked future is three words larger than the future: its task, the labels that the task has, and the waker that it has while
/// its waits are measured.
#[test]
fn it_costs_three_words() {
    fn check<F: Future>(what: &str, _: &F) {
        let align = align_of::<F>().max(align_of::<usize>());
        let most = (size_of::<F>() + 3 * size_of::<usize>()).next_multiple_of(align);
        let size = size_of::<Tracked<F>>();
        assert!(size <= most, "{what}: {size} bytes around {}", size_of::<F>());
    }
    let buffer = [0_u8; 100];
    check("ready", &ready(()));
    check("a byte", &async { ready(1_u8).await });
    check("a buffer", &async move {
        yield_once().await;
        buffer
    });
    check("boxed", &(Box::pin(ready(())) as Pin<Box<dyn Future<Output = ()>>>));
    check("aligned", &ready(Aligned(0)));
    #[derive(Debug)]
    #[repr(align(64))]
    struct Aligned(#[expect(dead_code)] u8);
}

/// A panic without the hook, which would spend more CPU time on a backtrace than the test does.
fn quiet_panic(message: &'static str) {
    std::panic::resume_unwind(Box::new(message));
}

/// Calls a closure when it is dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
