'use strict'
// Run by node --test. The program is played by scripts of Node.js.

const assert = require('node:assert/strict')
const { spawnSync } = require('node:child_process')
const { createHash } = require('node:crypto')
const { EventEmitter } = require('node:events')
const fs = require('node:fs')
const http = require('node:http')
const os = require('node:os')
const path = require('node:path')
const { test } = require('node:test')

const { program, download, find, execute } = require('./garo')

const folder = t => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'garo-action-'))
  t.after(() => fs.rmSync(dir, { recursive: true }))
  return dir
}

// serve answers with what the list has, the last one for ever, and keeps what was asked for.
const serve = async (t, answers) => {
  const asked = []
  const server = http.createServer((req, res) => {
    asked.push(req.url)
    const [status, body] = answers[Math.min(asked.length, answers.length) - 1]
    res.writeHead(status, { connection: 'close' }).end(body)
  })
  await new Promise(resolve => server.listen(0, '127.0.0.1', resolve))
  t.after(() => server.close())
  return { asked, base: `http://127.0.0.1:${server.address().port}` }
}

const releaseOf = bytes => ({ version: 'v1.2.3', sha256: { [program()]: createHash('sha256').update(bytes).digest('hex') } })

test('each system has a program of its own', () => {
  assert.equal(program('linux', 'x64'), 'garo_linux_amd64')
  assert.equal(program('darwin', 'arm64'), 'garo_darwin_arm64')
  assert.equal(program('win32', 'x64'), 'garo_windows_amd64.exe')
  assert.throws(() => program('sunos', 'x64'), /no program for sunos on x64/)
  assert.throws(() => program('linux', 's390x'), /no program for linux on s390x/)
})

test('a given program is used as it is', async t => {
  for (const env of [{ 'INPUT_GARO-PATH': ' /opt/garo ' }, { GARO_PATH: '/opt/garo' }]) {
    assert.equal(await find({ env, release: { version: '', sha256: {} }, dir: folder(t) }), path.resolve('/opt/garo'))
  }
})

const none = { version: '', sha256: {} }

// compiler returns an environment whose only program, go, is that script.
const compiler = (t, script) => {
  const bin = folder(t)
  fs.writeFileSync(path.join(bin, 'go'), `#!/bin/sh\n${script}`, { mode: 0o755 })
  return { PATH: bin }
}

test('a commit without a release builds the program from its own sources, once', async t => {
  const [root, dir] = [folder(t), folder(t)]
  const env = compiler(t, 'echo "$PWD $* CGO=$CGO_ENABLED WORK=$GOWORK CHAIN=$GOTOOLCHAIN OS=$GOOS ARCH=$GOARCH FLAGS=$GOFLAGS PROXY=$GOPROXY" >>log\necho program >"$5"\n')
  Object.assign(env, { GOOS: 'plan9', GOARCH: 'mips', GOFLAGS: '-mod=vendor', GOTOOLCHAIN: 'local', GOPROXY: 'https://proxy.example' })
  const file = await find({ env, release: none, root, dir })
  assert.equal(await find({ env, release: none, root, dir }), file)
  assert.equal(fs.readFileSync(file, 'utf8'), 'program\n')
  const log = fs.readFileSync(path.join(root, 'log'), 'utf8')
  assert.match(log, /^\S+ build -trimpath -buildvcs=false -o \S+ \.\/cmd\/garo CGO=0 WORK=off CHAIN=auto OS= ARCH= FLAGS= PROXY=https:\/\/proxy\.example\n$/)
  assert.equal(log.split(' ')[0], fs.realpathSync(root))
  assert.deepEqual(fs.readdirSync(dir), [path.basename(file)])
  assert.notEqual(await find({ env, release: none, root: folder(t), dir }), file) // of another commit
})

test('a commit without a release, and without Go, says what to do', async t => {
  await assert.rejects(find({ env: { PATH: folder(t) }, release: none, root: folder(t), dir: folder(t) }), /belongs to no release.*\(ENOENT\): add actions\/setup-go/)
})

test('a failed build shows what Go says, and keeps nothing', async t => {
  const dir = folder(t)
  const env = compiler(t, 'echo "go: go.mod requires go >= 1.26.0" >&2\nexit 3\n')
  await assert.rejects(find({ env, release: none, root: folder(t), dir }), /could not build it.*ended with 3 and said: go: go\.mod requires go >= 1\.26\.0/)
  assert.deepEqual(fs.readdirSync(dir), [])
})

test('a release without a program for this system is not built', async t => {
  const env = compiler(t, 'exit 3\n')
  await assert.rejects(find({ env, release: { version: 'v1.2.3', sha256: {} }, root: folder(t), dir: folder(t) }), /v1\.2\.3 has no program garo_/)
})

test('the program of the release is fetched once, and can be run', async t => {
  const { asked, base } = await serve(t, [[200, 'program']])
  const dir = folder(t)
  const release = releaseOf('program')
  const file = await find({ env: {}, release, dir, base })
  assert.equal(await find({ env: {}, release, dir, base }), file)
  assert.deepEqual(asked, [`/v1.2.3/${program()}`])
  assert.equal(fs.readFileSync(file, 'utf8'), 'program')
  assert.equal(fs.statSync(file).mode & 0o111, 0o111)
})

test('another program is not kept', async t => {
  const { base } = await serve(t, [[200, 'evil']])
  const dir = folder(t)
  await assert.rejects(find({ env: {}, release: releaseOf('program'), dir, base }), /it is not run/)
  assert.deepEqual(fs.readdirSync(dir), [])
})

test('a kept program that was changed is fetched again', async t => {
  const { asked, base } = await serve(t, [[200, 'program']])
  const dir = folder(t)
  const release = releaseOf('program')
  const file = await find({ env: {}, release, dir, base })
  fs.writeFileSync(file, 'evil')
  await find({ env: {}, release, dir, base })
  assert.equal(fs.readFileSync(file, 'utf8'), 'program')
  assert.equal(asked.length, 2)
})

test('trouble of the server is ridden out, a refusal is not', async t => {
  const trouble = await serve(t, [[503, ''], [429, ''], [200, 'program']])
  assert.equal(String(await download(trouble.base, 1)), 'program')
  assert.equal(trouble.asked.length, 3)
  const gone = await serve(t, [[404, 'nothing']])
  await assert.rejects(download(gone.base, 1), /answers 404/)
  assert.equal(gone.asked.length, 1)
  const down = await serve(t, [[500, '']])
  await assert.rejects(download(down.base, 1), /answers 500/)
  assert.equal(down.asked.length, 4)
})

const script = code => ['-e', code]

test('the status of the program is that of the step', async () => {
  assert.equal(await execute(process.execPath, script('process.exit(7)'), new EventEmitter()), 7)
  assert.equal(await execute(process.execPath, script('process.kill(process.pid, "SIGKILL")'), new EventEmitter()), 1)
  await assert.rejects(execute('/no/such/program', [], new EventEmitter()), /ENOENT/)
})

test('a signal ends the standard input of the program, and its end is awaited', async () => {
  for (const signal of ['SIGINT', 'SIGTERM']) {
    const signals = new EventEmitter()
    const status = execute(process.execPath, script('process.stdin.on("end", () => process.exit(130)).resume()'), signals)
    signals.emit(signal)
    signals.emit('SIGTERM') // the second one changes nothing
    assert.equal(await status, 130)
  }
})

test('the end of a job that asked for nothing needs no program', t => {
  const post = env => spawnSync(process.execPath, [path.join(__dirname, 'post.js')], { env: { RUNNER_TEMP: folder(t), GARO_PATH: '/no/such/program', ...env }, encoding: 'utf8' })
  const nothing = post({})
  assert.equal(nothing.status, 0)
  assert.match(nothing.stdout, /nothing to cancel/)
  const something = post({ STATE_garo: '{}' })
  assert.equal(something.status, 1)
  assert.match(something.stdout, /^::error title=GARO%3A no_program::.*ENOENT/)
})
