-- What is sold where? Orders stream in; who the customers are comes from another database's change stream (Debezium), and may be corrected later.

CREATE SOURCE IF NOT EXISTS orders (id BIGINT, customer_id BIGINT, amount NUMERIC(12, 2), at TIMESTAMPTZ)
  WITH (connector = 'kafka', topic = 'orders', properties.bootstrap.server = :'broker')
  FORMAT PLAIN ENCODE JSON;

CREATE TABLE IF NOT EXISTS customers (id BIGINT PRIMARY KEY, name VARCHAR, country VARCHAR)
  WITH (connector = 'kafka', topic = 'customers_cdc', properties.bootstrap.server = :'broker')
  FORMAT DEBEZIUM ENCODE JSON;

-- A correction to a customer moves the customer's orders from one country to the other, in past minutes too.
CREATE MATERIALIZED VIEW IF NOT EXISTS revenue AS
  SELECT o.window_start AS minute, c.country, count(*) AS orders, sum(o.amount) AS revenue
  FROM TUMBLE(orders, at, INTERVAL '1 minute') o JOIN customers c ON o.customer_id = c.id
  GROUP BY o.window_start, c.country;
