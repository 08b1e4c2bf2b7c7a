#!/usr/bin/env bash
# speedscope: of each location of a pprof file it keeps one function, the last; inlined functions are gone.
#
# Software: speedscope 1.25.0, pprof-format 2.3.2 (writes the profile), jsdom 26.1.0 (stands for the browser), from npm.
# Expected: a location with two lines, `inlined` and the function `caller` into which it was inlined, is two frames, as
#           profile.proto has it. The 10 ns are `inlined`'s.
# Seen:     one frame, `caller`, which has the 10 ns. A function that is inlined everywhere is nowhere in the profile,
#           and nothing says so. The same stack as folded text comes in whole.
# Source:   https://www.npmjs.com/package/speedscope; profile.proto of google/pprof, the comment on Location.line.
#
# speedscope is driven as in a browser: it loads a file, and Ctrl+S saves what it holds in its own format.
#
# Exits 0 if it is as described, 1 if it has changed, 77 if it cannot be tried here.
set -euo pipefail
for tool in node npm; do command -v $tool >/dev/null || { echo "SKIPPED: $tool is needed"; exit 77; }; done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
echo '{"private": true}' > package.json
npm install --silent --no-audit --no-fund --save-exact speedscope@1.25.0 pprof-format@2.3.2 jsdom@26.1.0 ||
    { echo "SKIPPED: the npm packages cannot be fetched"; exit 77; }

cat > import.js <<'JS'
const fs = require('fs');
const { JSDOM, VirtualConsole } = require('jsdom');
const { Profile, StringTable, ValueType, Sample, Location, Line, Function } = require('pprof-format');

function pprof() {
  const strings = new StringTable();
  const calls = (id, ...functions) =>
    new Location({ id, line: functions.map(functionId => new Line({ functionId })) });
  const bytes = new Profile({
    stringTable: strings,
    sampleType: [new ValueType({ type: strings.dedup('cpu'), unit: strings.dedup('nanoseconds') })],
    sample: [new Sample({ locationId: [1, 2], value: [10] })],
    location: [calls(1, 1, 2), calls(2, 3)],
    function: ['inlined', 'caller', 'main'].map((name, at) =>
      new Function({ id: at + 1, name: strings.dedup(name) })),
  }).encode();
  return Buffer.from(bytes);
}

const [name, file] = process.argv[2] === 'pprof'
  ? ['stack.pb', pprof()] : ['stack.folded', Buffer.from('main;caller;inlined 10\n')];
const options = { url: 'http://localhost/#localProfilePath=none', runScripts: 'outside-only',
  pretendToBeVisual: true, virtualConsole: new VirtualConsole() };
const { window } = new JSDOM('<!DOCTYPE html><html><head></head><body></body></html>', options);
const ignored = () => {};
window.matchMedia = () => ({ matches: false, addListener: ignored, addEventListener: ignored });
Object.assign(window, { TextDecoder, TextEncoder });
// There is no WebGL here to draw with; only what was loaded matters.
process.on('uncaughtException', ignored);
window.URL.createObjectURL = blob => {
  const reader = new window.FileReader();
  reader.onload = () => {
    console.log(JSON.parse(reader.result).shared.frames.map(frame => frame.name).join(';'));
    process.exit(0);
  };
  reader.readAsText(blob);
  return 'blob:saved';
};
const folder = 'node_modules/speedscope/dist/release/';
const script = fs.readdirSync(folder).find(each => /^speedscope-.*\.js$/.test(each));
window.eval(fs.readFileSync(folder + script, 'utf8'));
const save = () => window.dispatchEvent(new window.KeyboardEvent('keydown', { key: 's', ctrlKey: true }));
setTimeout(() => window.speedscope.loadFileFromBase64(name, file.toString('base64')), 200);
setInterval(save, 500);
setTimeout(() => process.exit(1), 30000);
JS
pprof=$(node import.js pprof)
folded=$(node import.js folded)
echo "speedscope 1.25.0 holds of main;caller;inlined: from pprof $pprof, from folded text $folded"
if [ "$pprof" = 'main;caller' ] && [ "$folded" = 'main;caller;inlined' ]
then echo "as described"; else echo "CHANGED"; exit 1; fi
