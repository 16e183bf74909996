#!/bin/sh
# rabbitmq-c through its command line tools; every command is a connection of its own.
# Reads AMQP_URL and PREFIX; the working directory is the run's own.
set -eu

fail() { echo "failed: $*" >&2; exit 1; }
same() { [ "$1" = "$2" ] || fail "got '$1', not '$2'"; }
queue="${PREFIX}hello"

same "$(amqp-declare-queue -u "$AMQP_URL" -q "$queue" -d)" "$queue"
amqp-publish -u "$AMQP_URL" -r "$queue" -p -C text/plain -b 'Hello World!'
same "$(amqp-get -u "$AMQP_URL" -q "$queue")" 'Hello World!'
status=0
amqp-get -u "$AMQP_URL" -q "$queue" || status=$?
same "$status" 2 # "no message": the tool's documented exit code
echo 'passed get'

# Lines from standard input are one message each.
printf 'one\ntwo\nthree\n' | amqp-publish -u "$AMQP_URL" -r "$queue" -l
same "$(amqp-consume -u "$AMQP_URL" -q "$queue" -c 3 -p 1 cat)" "$(printf 'one\ntwo\nthree\n')"
echo 'passed consume'

# A command that fails gives its message back; the next consumer gets it.
amqp-publish -u "$AMQP_URL" -r "$queue" -b 'again'
amqp-consume -u "$AMQP_URL" -q "$queue" -c 1 false || true
same "$(amqp-consume -u "$AMQP_URL" -q "$queue" -c 1 cat)" 'again'
echo 'passed requeue'

# Body of several frames.
head -c 1000003 /dev/urandom > large.sent
amqp-publish -u "$AMQP_URL" -r "$queue" < large.sent
amqp-get -u "$AMQP_URL" -q "$queue" > large.got
cmp large.sent large.got
echo 'passed large'

# A private queue bound to a topic exchange.
amqp-consume -u "$AMQP_URL" -e amq.topic -r "${PREFIX}*.info" -c 2 -A cat > topic.got &
consumer=$!
# Nothing tells when it is bound: 'none.info' is sent until the first one has come.
tries=0
while ! [ -s topic.got ]; do
    tries=$((tries + 1))
    [ "$tries" -lt 200 ] || fail 'the topic consumer got nothing'
    amqp-publish -u "$AMQP_URL" -e amq.topic -r "${PREFIX}kern.error" -b "$(printf 'error\n ')"
    amqp-publish -u "$AMQP_URL" -e amq.topic -r "${PREFIX}kern.info" -b 'info '
done
amqp-publish -u "$AMQP_URL" -e amq.topic -r "${PREFIX}cron.info" -b 'info '
wait "$consumer"
same "$(cat topic.got)" 'info info '
echo 'passed topic'

# Errors reach the user with the broker's own words.
if amqp-get -u "$AMQP_URL" -q "${PREFIX}missing" 2> missing.err; then fail 'got from nowhere'; fi
grep -q "NOT_FOUND - no queue '${PREFIX}missing' in vhost '/'" missing.err ||
    fail "$(cat missing.err)"
if amqp-declare-queue -u "$AMQP_URL" -q "$queue" 2> other.err; then fail 'accepted'; fi
grep -q "PRECONDITION_FAILED - inequivalent arg 'durable'" other.err || fail "$(cat other.err)"
echo 'passed errors'

# -e: only when empty.
amqp-publish -u "$AMQP_URL" -r "$queue" -b 'left'
if amqp-delete-queue -u "$AMQP_URL" -q "$queue" -e 2> full.err; then fail 'deleted'; fi
grep -q PRECONDITION_FAILED full.err || fail "$(cat full.err)"
same "$(amqp-delete-queue -u "$AMQP_URL" -q "$queue")" 1
echo 'passed delete'
