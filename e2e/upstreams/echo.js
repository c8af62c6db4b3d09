// Says how Node reads a request: new URL, URLSearchParams, joined headers.
const http = require('http');
const server = http.createServer((req, res) => {
  let view;
  if (req.url === '/healthz') {
    res.end();
    return;
  }
  try {
    const url = new URL(req.url, 'http://upstream');
    view = {
      method: req.method,
      segments: url.pathname.split('/').slice(1).map(decodeURIComponent),
      query: [...url.searchParams.entries()],
      mode: req.headers['x-mode'] || '',
    };
  } catch (e) {
    view = {error: String(e)};
  }
  res.setHeader('x-upstream', 'node');
  res.end(JSON.stringify(view));
});
server.listen(0, '127.0.0.1', () => {
  console.log(JSON.stringify({ready: true, address: '127.0.0.1:' + server.address().port}));
});
