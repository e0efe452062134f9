'use strict'
// The shell of the action: it finds the program garo, makes sure that it is the one of this release, and runs it. A
// commit that belongs to no release builds it from its own sources. All that the action does is done there. Nothing but
// Node.js itself is needed, and Go where it builds.

const { spawn } = require('node:child_process')
const { createHash, randomUUID } = require('node:crypto')
const fs = require('node:fs')
const os = require('node:os')
const path = require('node:path')

const releases = 'https://github.com/alphagov/github-actions-runner-orchestration/releases/download'
const guide = 'https://github.com/alphagov/github-actions-runner-orchestration/blob/main/docs/action.md'
const tries = 4
const patience = 120_000 // ms for one try: 20 MB at 170 kB/s

const sleep = ms => new Promise(resolve => setTimeout(resolve, ms))
const sha256 = bytes => createHash('sha256').update(bytes).digest('hex')

// program returns the name of the program for a system, as the release has it.
function program (platform = process.platform, arch = process.arch) {
  const system = { linux: 'linux', darwin: 'darwin', win32: 'windows' }[platform]
  const machine = { x64: 'amd64', arm64: 'arm64' }[arch]
  if (!system || !machine) throw new Error(`there is no program for ${platform} on ${arch}`)
  return `garo_${system}_${machine}${system === 'windows' ? '.exe' : ''}`
}

// download returns the bytes at url. What may pass is tried again.
async function download (url, pause = 1000) {
  for (let n = 1; ; n++) {
    try {
      const answer = await fetch(url, { signal: AbortSignal.timeout(patience) })
      if (answer.ok) return Buffer.from(await answer.arrayBuffer())
      const passes = answer.status === 429 || answer.status >= 500
      throw Object.assign(new Error(`${url} answers ${answer.status}`), { final: !passes })
    } catch (err) {
      if (err.final || n === tries) throw err
      await sleep(pause * 2 ** n * (0.5 + Math.random() / 2))
    }
  }
}

// build returns the path of the program in dir, and makes it from the sources that came with the action if it is not
// there: the steps of a job and its end use one program.
async function build ({ env, root, dir }) {
  const file = path.join(dir, `built-${sha256(root)}${process.platform === 'win32' ? '.exe' : ''}`)
  if (fs.existsSync(file)) return file
  console.log('This commit of the action belongs to no release: garo is built from its sources, which takes a minute or two.')
  fs.mkdirSync(dir, { recursive: true })
  const fresh = path.join(dir, randomUUID())
  // The job may have set these for its own builds. auto lets Go fetch the version that go.mod names.
  const { GOOS, GOARCH, GOFLAGS, GO111MODULE, ...own } = env
  const began = Date.now()
  const [status, said] = await new Promise((resolve, reject) => {
    const go = spawn('go', ['build', '-trimpath', '-buildvcs=false', '-o', fresh, './cmd/garo'], {
      cwd: root, env: { ...own, CGO_ENABLED: '0', GOWORK: 'off', GOTOOLCHAIN: 'auto' }, stdio: ['ignore', 'inherit', 'pipe']
    })
    let said = ''
    go.stderr.on('data', text => { process.stdout.write(text); said = (said + text).slice(-2000) }) // the end says what failed
    go.on('error', err => reject(new Error(
      `this commit of the action belongs to no release, and Go, which would build it, cannot be run (${err.code}): ` +
      'add actions/setup-go before this step, use a release of the action, or give garo-path')))
    go.on('close', status => resolve([status, said]))
  })
  if (status !== 0) {
    throw new Error('this commit of the action belongs to no release, and Go could not build it: use a release of the action, or give garo-path.' +
      ` Go ended with ${status} and said: ${said.trim()}`)
  }
  fs.renameSync(fresh, file)
  console.log(`Built garo in ${Math.round((Date.now() - began) / 1000)} s.`)
  return file
}

// find returns the path of the program: the one that is given, or that of the release, which is written to dir once
// its SHA-256 is the one that this commit of the action names, or the one that is built where it names none.
async function find ({ env, release, dir, base = releases, root = path.resolve(__dirname, '../../..'), pause }) {
  const given = (env['INPUT_GARO-PATH'] || '').trim() || env.GARO_PATH
  if (given) return path.resolve(given)
  if (!release.version) return build({ env, root, dir })
  const name = program()
  const want = release.sha256[name]
  if (!want) throw new Error(`the release ${release.version} has no program ${name}: give garo-path`)
  const file = path.join(dir, `${want}-${name}`)
  if (fs.existsSync(file) && sha256(fs.readFileSync(file)) === want) return file
  const bytes = await download(`${base}/${release.version}/${name}`, pause)
  const got = sha256(bytes)
  if (got !== want) throw new Error(`the program ${name} of ${release.version} has SHA-256 ${got}, want ${want}: it is not run`)
  fs.mkdirSync(dir, { recursive: true })
  const fresh = path.join(dir, randomUUID())
  fs.writeFileSync(fresh, bytes, { mode: 0o755 })
  fs.renameSync(fresh, file)
  return file
}

// execute runs the program and returns its exit status. A signal ends the program's standard input, which tells it to
// cancel what it began and to end: that works on every system, and even if this process is killed.
function execute (file, args, signals = process) {
  return new Promise((resolve, reject) => {
    const child = spawn(file, args, { stdio: ['pipe', 'inherit', 'inherit'] })
    child.stdin.on('error', () => {}) // the program has ended
    for (const name of ['SIGINT', 'SIGTERM']) signals.on(name, () => child.stdin.end())
    child.on('error', reject)
    child.on('close', (code, signal) => resolve(signal ? 1 : code))
  })
}

async function run (stage) {
  // What the main stage saves before it asks for anything comes back in this variable.
  if (stage === 'post' && !process.env.STATE_garo) {
    console.log('No runner was asked for: there is nothing to cancel.')
    return
  }
  try {
    const release = JSON.parse(fs.readFileSync(path.join(__dirname, 'release.json'), 'utf8'))
    // GitHub's folder is this job's own; in the system's, others could put a program in the place of a checked one.
    const dir = process.env.RUNNER_TEMP ? path.join(process.env.RUNNER_TEMP, 'garo') : fs.mkdtempSync(path.join(os.tmpdir(), 'garo-'))
    // Without a program there is nothing that the end of the job could have to cancel.
    const file = await find({ env: process.env, release, dir })
    process.exitCode = await execute(file, ['action', stage])
  } catch (err) {
    const text = `${err.message}\nWhat to do: ${guide}#no_program`
    const escaped = text.replace(/%/g, '%25').replace(/\r/g, '%0D').replace(/\n/g, '%0A')
    process.stdout.write(`::error title=GARO%3A no_program::${escaped}\n`)
    process.exitCode = 1
  }
}

module.exports = { program, download, find, execute, run }
