"""What an application does with its workers. Usage: client.py rpc|chord|reconnect NODE"""
import sys
import time

from celery import chain, chord, group
from tasks import add, app, broken, flaky, total

mode, node = sys.argv[1:]


def pong():
    try:
        return app.control.ping(destination=[node], timeout=1, limit=1)
    except app.connection_for_write().recoverable_connection_errors as error:
        # Broadcasts, unlike tasks, are not repeated on a connection that has broken.
        print('no pong', repr(error))
        time.sleep(0.2)


def wait_for_worker():
    deadline = time.monotonic() + 40
    while not pong():
        assert time.monotonic() < deadline, 'no pong from ' + node


def rpc():
    assert add.delay(2, 3).get(timeout=20) == 5
    print('passed result')
    results = [add.delay(n, n) for n in range(20)]
    assert [result.get(timeout=20) for result in results] == [2 * n for n in range(20)]
    print('passed many')
    try:
        broken.delay().get(timeout=20)
        raise SystemExit('did not raise')
    except KeyError:
        print('passed error')
    assert flaky.delay(2).get(timeout=20) == 2
    print('passed retries')
    try:
        flaky.delay(9).get(timeout=20)
        raise SystemExit('did not raise')
    except ValueError:
        print('passed retries_exhausted')
    later = add.apply_async((1, 1), countdown=0.5)
    assert later.get(timeout=20) == 2
    print('passed countdown')
    assert app.control.ping(destination=[node], timeout=5) == [{node: {'ok': 'pong'}}]
    print('passed ping')
    inspect = app.control.inspect(destination=[node], timeout=5)
    assert 'tasks.add' in inspect.registered()[node]
    queue, = inspect.active_queues()[node]
    assert queue['name'] == app.conf.task_default_queue
    assert inspect.stats()[node]['broker']['transport'] == 'amqp'
    print('passed inspect')
    reply, = app.control.rate_limit('tasks.add', '1000/s', reply=True, destination=[node],
                                    timeout=5)
    assert 'ok' in reply[node], reply
    reply, = app.control.pool_grow(1, reply=True, destination=[node], timeout=5)
    assert 'ok' in reply[node], reply
    print('passed remote_control')


def chords():
    assert chord([add.s(n, n) for n in range(5)])(total.s()).get(timeout=30) == 20
    print('passed chord')
    assert chain(add.s(1, 2), add.s(3), add.s(4))().get(timeout=20) == 10
    print('passed chain')
    assert group(add.s(n, 1) for n in range(4))().get(timeout=20) == [1, 2, 3, 4]
    print('passed group')


def reconnect():
    assert add.delay(1, 1).get(timeout=20) == 2
    print('ready')
    assert sys.stdin.readline() == 'restarted\n'
    wait_for_worker()
    assert add.apply_async((20, 22), retry=True).get(timeout=30) == 42
    print('passed reconnect')


wait_for_worker()
{'rpc': rpc, 'chord': chords, 'reconnect': reconnect}[mode]()
