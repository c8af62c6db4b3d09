import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.URLDecoder;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Executors;

/** Says how Java reads a request: URI.getPath, URLDecoder, the first header. */
public class Echo {
  public static void main(String[] args) throws Exception {
    HttpServer server = HttpServer.create(new InetSocketAddress(InetAddress.getByName("127.0.0.1"), 0), 0);
    server.createContext("/", Echo::answer);
    server.setExecutor(Executors.newFixedThreadPool(4));
    server.start();
    System.out.println("{\"ready\":true,\"address\":\"127.0.0.1:" + server.getAddress().getPort() + "\"}");
    System.out.flush();
  }

  static void answer(HttpExchange exchange) throws java.io.IOException {
    List<String> segments = new ArrayList<>();
    String[] parts = exchange.getRequestURI().getPath().split("/", -1);
    for (int i = 1; i < parts.length; i++) {
      segments.add(text(parts[i]));
    }
    List<String> query = new ArrayList<>();
    String raw = exchange.getRequestURI().getRawQuery();
    for (String pair : raw == null ? new String[0] : raw.split("&")) {
      if (pair.isEmpty()) {
        continue;
      }
      int at = pair.indexOf('=');
      String name = at < 0 ? pair : pair.substring(0, at);
      String value = at < 0 ? "" : pair.substring(at + 1);
      query.add("[" + text(decode(name)) + "," + text(decode(value)) + "]");
    }
    String mode = exchange.getRequestHeaders().getFirst("x-mode");
    String body = "{\"method\":" + text(exchange.getRequestMethod()) + ",\"segments\":[" + String.join(",", segments) + "],\"query\":["
        + String.join(",", query) + "],\"mode\":" + text(mode == null ? "" : mode) + "}";
    byte[] bytes = body.getBytes(StandardCharsets.UTF_8);
    exchange.getResponseHeaders().set("x-upstream", "java");
    exchange.sendResponseHeaders(200, exchange.getRequestMethod().equals("HEAD") ? -1 : bytes.length);
    try (var out = exchange.getResponseBody()) {
      out.write(bytes);
    }
  }

  static String decode(String s) {
    return URLDecoder.decode(s, StandardCharsets.UTF_8);
  }

  static String text(String s) {
    StringBuilder out = new StringBuilder("\"");
    for (char c : s.toCharArray()) {
      if (c < 0x20 || c == '"' || c == '\\' || c > 0x7e) {
        out.append(String.format("\\u%04x", (int) c));
      } else {
        out.append(c);
      }
    }
    return out.append('"').toString();
  }
}
