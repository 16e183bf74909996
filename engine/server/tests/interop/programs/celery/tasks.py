"""A small celery application; where results go is the scenario's choice."""
import os

from celery import Celery
from kombu import Queue

URL, PREFIX = os.environ['AMQP_URL'], os.environ['PREFIX']

app = Celery('tasks', broker=URL, backend=os.environ['RESULT_BACKEND'])
app.conf.update(
    task_queues=[Queue(PREFIX + 'celery')],
    task_default_queue=PREFIX + 'celery',
    control_exchange=PREFIX + 'pidbox',
    event_exchange=PREFIX + 'events',
    event_queue_prefix=PREFIX + 'events',
    result_exchange=PREFIX + 'results',
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
    broker_connection_timeout=10,
    result_chord_retry_interval=0.2,
)


@app.task
def add(x, y):
    return x + y


@app.task
def total(numbers):
    return sum(numbers)


@app.task(bind=True, max_retries=3)
def flaky(self, fails):
    """Fails `fails` times, then says which attempt it was."""
    if self.request.retries < fails:
        raise self.retry(countdown=0.2, exc=ValueError('not yet'))
    return self.request.retries


@app.task
def broken():
    raise KeyError('broken on purpose')
