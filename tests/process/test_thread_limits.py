"""Threads that can't be had, whatever limits them: fewer threads, one warning, the same bits, status 0."""

from __future__ import annotations

import os

import pytest
from helpers import few_or_many
from own_process import WARM, run_python

from fastlayer import _core

pytestmark = [
    pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="no /proc"),
    pytest.mark.skipif(not _core.config()["openmp"], reason="built without OpenMP"),
]

unsanitized = pytest.mark.skipif(
    "libasan" in os.environ.get("LD_PRELOAD", ""), reason="the sanitizer maps memory of its own"
)


# --- address space

LIMITED = f"""
import resource, warnings
{WARM.replace("expected = digest()", "")}
fl.set_num_threads(1)
expected = digest()

def size(field=0):
    "Bytes that are mapped: 0 for all of them, 5 for data and stacks."
    with open("/proc/self/statm") as file:
        return int(file.read().split()[field]) * resource.getpagesize()

def limited(threads, room):
    "Warnings of two calls on so many threads, with `room` bytes more than there are now."
    limit = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size() + room, limit[1]))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fl.set_num_threads(threads)
        assert digest() == expected
        assert digest() == expected
    resource.setrlimit(resource.RLIMIT_AS, limit)
    return [(w.category.__name__, os.path.basename(w.filename), str(w.message)) for w in caught]

stack = threading.stack_size(0) or resource.getrlimit(resource.RLIMIT_STACK)[0]
stack = stack if 0 < stack < 2**30 else 8 * 2**20
"""


@pytest.mark.parametrize("stacks", [0.5, 1.5, 4.5, 9.5])
def test_threads_that_cannot_be_started(stacks):
    """Room for few stacks: fewer threads and one warning, not the end of the process."""
    code = f"""{LIMITED}
for name, file, message in limited(16, int({stacks} * stack)):
    print(name, file, message, sep="|")
time.sleep(0.1)
assert 1 <= os_threads() <= 1 + {stacks}, os_threads()
had = os_threads()
assert digest() == expected  # with room again, but the number has not been set anew
assert os_threads() == had
assert not limited(16, 64 * stack) and settled(16), os_threads()
"""
    lines = run_python(code).splitlines()
    assert len(lines) == 1, lines
    name, file, message = lines[0].split("|")
    assert (name, file) == ("RuntimeWarning", "<string>")
    assert message.startswith("fastlayer wanted 16 threads and could have ")
    assert int(message.split("could have ")[1].split(":")[0]) <= 1 + stacks


def test_the_warning_as_an_error():
    """The call raises it; the next one is right."""
    code = f"""{LIMITED}
limit = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (size() + stack // 2, limit[1]))
warnings.simplefilter("error")
fl.set_num_threads(8)
try:
    digest()
except RuntimeWarning:
    print("raised")
assert digest() == expected
"""
    assert run_python(code) == "raised"


@unsanitized
@pytest.mark.parametrize("limit", ["RLIMIT_AS", "RLIMIT_DATA"])
@pytest.mark.parametrize("rooms", few_or_many((10, 60, 150, 240, 420, 700), (*range(4, 1200, 6),)))
def test_a_team_leaves_half_of_the_room_to_the_program(rooms, limit):
    """Each time that it is asked for more, in processes that end at once."""
    code = f"""{LIMITED}
def use(room):
    mapped = size({{"RLIMIT_AS": 0, "RLIMIT_DATA": 5}}["{limit}"])
    hard = resource.getrlimit(resource.{limit})[1]
    resource.setrlimit(resource.{limit}, (mapped + room, hard))
    for _ in range(2):
        room //= 2
        fl.set_num_threads(64)
        for _ in range(3):
            assert digest() == expected
        np.empty(max(0, room - 16 * 2**20), np.uint8)  # less what Python and the call have taken

warnings.simplefilter("ignore")
for room in {rooms}:
    if os.fork() == 0:
        use(room * 2**20)
        sys.exit()
    assert os.wait()[1] == 0, room
"""
    run_python(code)


@pytest.mark.parametrize("room", [30, 90, 300, 500])
@pytest.mark.parametrize("calls", [1, 40])
def test_64_threads_wanted_and_little_room(room, calls):
    code = f"""{LIMITED}
caught = limited(64, {room} * 2**20)
for _ in range({calls}):
    assert digest() == expected
print(*caught, sep="|")
"""
    assert run_python(code).count("RuntimeWarning") == 1


@unsanitized
def test_a_helper_takes_its_stack_and_nothing_else():
    """No arena of malloc, which is 64 MB of address space for each thread."""
    code = f"""{LIMITED}
before = size()
fl.set_num_threads(64)
for _ in range(50):
    assert digest() == expected
assert settled(64), os_threads()
print((size() - before) / 63 / (stack + resource.getpagesize()))
"""
    assert float(run_python(code)) < 1.1


def test_without_a_look_at_what_is_mapped_nothing_is_risked():
    code = f"""{LIMITED}
files = resource.getrlimit(resource.RLIMIT_NOFILE)
with open("/proc/self/statm") as file:  # the last one that can be opened
    mapped = int(file.read().split()[0]) * resource.getpagesize()
space = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (mapped + 100 * stack, space[1]))
resource.setrlimit(resource.RLIMIT_NOFILE, (0, files[1]))
fl.set_num_threads(8)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    assert digest() == expected
resource.setrlimit(resource.RLIMIT_NOFILE, files)
print(os_threads(), len(caught))
fl.set_num_threads(8)
assert digest() == expected and settled(8)
"""
    assert run_python(code) == "1 1"


# --- places


@pytest.mark.parametrize("places", [0, 1, 2, 5])
def test_a_limit_of_processes_leaves_one_place_to_others(places):
    """As a user who has nothing else running; who may not become one has no place at all."""
    code = f"""{LIMITED}
places = {places} if os.getuid() == 0 else 0
if os.getuid() == 0:
    os.setresuid(54_321, 54_321, 54_321)
resource.setrlimit(resource.RLIMIT_NPROC, (places and 1 + places,) * 2)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    fl.set_num_threads(64)
    for _ in range(50):
        assert digest() == expected
helpers = max(0, places - 1)
assert settled(1 + helpers), os_threads()
assert [w.category for w in caught] == [RuntimeWarning]
assert f"wanted 64 threads and could have {{1 + helpers}}:" in str(caught[0].message)
if places:
    thread = threading.Thread(target=digest)
    thread.start()
    thread.join()
"""
    run_python(code)


def test_openmps_limit_of_threads_holds_and_is_no_news():
    code = f"""{WARM}
for _ in range(50):
    assert digest() == expected
print(os_threads())
"""
    assert run_python(code, env={"OMP_THREAD_LIMIT": "3"}) == "3"


def test_helpers_are_bound_to_openmps_places_in_turn():
    """Not to the one place of the thread that started them."""
    cores = sorted(os.sched_getaffinity(0))
    code = f"""{WARM}
for _ in range(50):
    assert digest() == expected
time.sleep(0.1)
assert digest() == expected and settled(4)
print(*(core for task in sorted(os.listdir("/proc/self/task"), key=int)
        for core in os.sched_getaffinity(int(task))))
"""
    places = ",".join(f"{{{core}}}" for core in cores)
    bound = run_python(code, env={"OMP_PLACES": places, "OMP_PROC_BIND": "close"})
    assert bound.split() == [str(cores[i % len(cores)]) for i in range(4)]
